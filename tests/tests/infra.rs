//! What Terraform sets is what the services read. Terraform's own rules are in infra/tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tasuki_google::http::{EVENTS, LIVE, READY, SWEEP};
use tasuki_google::records::schema;
use tasuki_google::settings::{Role, Unset, VARIABLES, read};
use tasuki_relay::ddl::{self, LOADER_ROLE, READER_ROLE, SPLITTER_ROLE};
use tasuki_relay::limits::{MUTATIONS_MAX, ROWS_PER_SHARD};
use tasuki_relay::names::{self, Bucket, RunId, Segment, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines between the braces of the first `<name> = {` of `text`, as `terraform fmt` lays them out.
fn braces<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let head = format!("{name} = {{");
    let mut lines = text.lines().skip_while(|line| line.trim() != head);
    let first = lines.next().unwrap_or_else(|| panic!("there is no {head:?}"));
    let end = format!("{}}}", &first[..first.len() - first.trim_start().len()]);
    lines.take_while(|line| **line != end).collect()
}

/// `key = value` of each line, without comments.
fn pairs<'t>(lines: &[&'t str]) -> BTreeMap<&'t str, &'t str> {
    let pair = |line: &&'t str| {
        let (key, value) = line.trim().split_once('=')?;
        let value = value.split(" # ").next().unwrap_or_default().trim();
        (!key.trim().starts_with('#')).then_some((key.trim(), value))
    };
    lines.iter().filter_map(pair).collect()
}

/// What Terraform tells the service of `role`, as it stands in services.tf.
fn told(services: &str, role: Role) -> BTreeMap<String, String> {
    let of_all = pairs(&braces(services, "environment"));
    let service = braces(services, role.as_str()).join("\n");
    let of_one = pairs(&braces(&service, "env"));
    of_all.into_iter().chain(of_one).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the value will be, or something of its form.
fn value(name: &str, expression: &str) -> String {
    if let Some(bucket) = name.strip_suffix("_BUCKET").and_then(|name| name.strip_prefix("TASUKI_")) {
        return format!("project-tasuki-{}", bucket.to_lowercase());
    }
    let known = match name {
        "GOOGLE_CLOUD_PROJECT" => "my-project",
        "TASUKI_SPANNER_DATABASE" => "projects/p/instances/i/databases/d",
        "TASUKI_COMPLETED_TOPIC" => "projects/p/topics/t",
        "TASUKI_BIGQUERY_SOURCES" => "my-project.shop,my-project.shop.products",
        "TASUKI_BIGQUERY_STAGING" => "my-project.tasuki_staging",
        "TASUKI_BIGQUERY_GIB_MAX" | "TASUKI_MAX_IN_FLIGHT" => "1000",
        "TASUKI_INSTANCES" => "2",
        "TASUKI_MODEL_LOCATION" => "europe-west4",
        "OPENAI_BASE_URL" => "https://gateway.internal/v1",
        "OPENAI_RESPONSE_FORMAT" => "text",
        "TASUKI_ACK_DEADLINE" => "585",
        "TASUKI_INBOX_RETENTION" => "45",
        "TASUKI_OIDC_EMAILS" => "a@p.iam.gserviceaccount.com,b@p.iam.gserviceaccount.com",
        _ => expression.trim_matches('"'),
    };
    assert!(!known.contains("var.") && !known.contains("local."), "say here what {name} = {expression} comes to");
    known.to_owned()
}

#[test]
fn every_variable_that_terraform_sets_is_a_setting_and_every_one_that_is_needed_is_set() {
    let services = text("infra/services.tf");
    for role in Role::ALL {
        let told = told(&services, role);
        assert!(told.len() > 8, "{role:?}: {told:?}");
        for name in told.keys() {
            let read_by = VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.roles);
            assert!(read_by.is_some_and(|roles| roles.contains(&role)), "{role:?} does not read {name}");
        }
        let needed =
            VARIABLES.iter().filter(|variable| variable.roles.contains(&role) && variable.unset == Unset::Refused);
        for variable in needed {
            assert!(told.contains_key(variable.name), "Terraform does not set {} of {role:?}", variable.name);
        }
    }
}

#[test]
fn every_service_starts_with_what_terraform_tells_it() {
    let services = text("infra/services.tf");
    for (role, bigquery) in Role::ALL.into_iter().flat_map(|role| [(role, true), (role, false)]) {
        let told = told(&services, role).into_iter().filter(|(name, _)| bigquery || !name.contains("BIGQUERY"));
        let environment = told.map(|(name, expression)| (name.clone(), value(&name, &expression)));
        let on_cloud_run = ("K_SERVICE".to_owned(), role.service().to_owned());
        let settings =
            read(role, environment.chain([on_cloud_run])).unwrap_or_else(|error| panic!("{role:?}: {error}"));
        assert_eq!(settings.bigquery.is_some(), bigquery && role == Role::Splitter);
        let role_in_store = [Some(SPLITTER_ROLE), None, Some(LOADER_ROLE)][role as usize];
        assert_eq!(settings.database_role.as_deref(), role_in_store, "{role:?}");
    }
}

#[test]
fn buckets_and_who_listens_to_them_are_those_of_the_code() {
    let (locals, buckets, services) = (text("infra/locals.tf"), text("infra/buckets.tf"), text("infra/services.tf"));
    let listens = |role: Role| (role.as_str(), format!("\"{}\"", role.listens_to().as_str()));
    let hops = pairs(&braces(&locals, "hops"));
    assert_eq!(hops, Role::ALL.map(listens).iter().map(|(role, bucket)| (*role, bucket.as_str())).collect());
    let made = braces(&buckets, "buckets");
    let made = made.iter().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    let made: BTreeSet<&str> = made.filter_map(|line| Some(line.split_once(" = ")?.0.trim())).collect();
    assert_eq!(made, Bucket::ALL.map(Bucket::as_str).into());
    let told = pairs(&braces(&services, "environment"));
    for bucket in Bucket::ALL.map(Bucket::as_str) {
        let variable = format!("TASUKI_{}_BUCKET", bucket.to_uppercase());
        assert_eq!(told[variable.as_str()], format!("google_storage_bucket.bucket[\"{bucket}\"].name"));
    }
}

#[test]
fn prefixes_of_rules_and_roles_are_those_of_names() {
    let run = RunId::of("b", "p/f.jsonl", 1);
    let shard = ShardId { run: run.clone(), shard: ShardIndex(0) };
    let segment = Segment { shard: shard.clone(), epoch: 1, seq: 1 }.object();
    let names = [
        names::pipeline("p"),
        names::plan(&run),
        names::open(&run),
        names::split(&run),
        shard.claim(),
        segment,
        names::cancel(&run),
        names::cached("0123456789abcdef0123456789abcdef"),
    ];
    let built: BTreeSet<String> =
        names.iter().filter_map(|name| Some(format!("{}/", name.split_once('/')?.0))).collect();
    let buckets = text("infra/buckets.tf");
    let quoted = |text: &str| -> BTreeSet<String> {
        text.split('"').skip(1).step_by(2).filter(|word| word.ends_with('/')).map(str::to_owned).collect()
    };
    let access = buckets.split_once("storage_access = [").expect("who does what").1;
    let access = access.split_once("\n  ]").expect("its end").0;
    assert_eq!(quoted(access), built, "who does what in the state");
    let state = braces(&buckets, "state").join("\n");
    let mut expiring = quoted(&braces(&state, "expire").join("\n"));
    assert!(expiring.insert("pipelines/".to_owned()), "a pipeline is never deleted");
    assert_eq!(expiring, built, "what is deleted in the state");
    assert!(text("infra/pipelines.tf").contains(&names::pipeline("${each.key}")));
}

#[test]
fn paths_port_and_programs_are_those_of_the_services() {
    let services = text("infra/services.tf");
    for path in [READY, LIVE] {
        assert!(services.contains(&format!("path = \"{path}\"")), "{path}");
    }
    assert!(text("infra/eventarc.tf").contains(&format!("path    = \"{EVENTS}\"")));
    assert!(text("infra/scheduler.tf").contains(&format!(".uri}}{SWEEP}\"")));
    let port = VARIABLES.iter().find(|variable| variable.name == "PORT").map(|variable| variable.unset);
    let set = services.lines().find_map(|line| line.trim().strip_prefix("container_port = ")).expect("a port");
    assert!(matches!(port, Some(Unset::Is(default)) if default == set), "{port:?}");
    assert!(services.contains("command = [\"tasuki-${each.key}\"]"));
    for role in Role::ALL {
        assert_eq!(role.service(), format!("tasuki-{}", role.as_str()));
    }
}

/// As spanner.tf and targets.tf read statements: without comments, cut at semicolons, each on one line.
fn as_terraform_reads(text: &str) -> Vec<String> {
    let bare: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let one_line = |statement: &str| statement.split_whitespace().collect::<Vec<_>>().join(" ");
    bare.join("\n").split(';').map(one_line).filter(|statement| !statement.is_empty()).collect()
}

/// Runs targets.tf's script with the programs of `folder` before all others. Whether it ended well, and what it said.
fn declares_targets(folder: &Path, reply: &str, code: &str) -> (bool, String) {
    let targets = text("infra/targets.tf");
    let script = targets.split_once("<<-SH\n").and_then(|(_, rest)| rest.split_once("\n    SH\n")).expect("a script").0;
    assert!(!script.contains("${"), "Terraform would put something in");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    let set = [("TOKEN", "secret"), ("API", "https://a"), ("DATABASE", "d"), ("BODY", "{}"), ("REPLY", reply)];
    let ran = Command::new("sh").args(["-c", script]).envs(set).env("CODE", code).env("PATH", path).output();
    let ran = ran.expect("there is a shell");
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn statements_reach_spanner_without_a_token_among_the_arguments() {
    let ran = declares_targets(&root().join("infra/tests/stand-ins"), "", "");
    assert_eq!(ran, (true, String::new()));
}

#[cfg(unix)]
#[test]
fn why_spanner_refused_a_statement_is_shown() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let curl = folder.path().join("curl");
    let answers = "#!/bin/sh\ncat > /dev/null\nwhile [ \"$1\" != -o ]; do shift; done\nprintf '%s' \"$REPLY\" > \"$2\"\nexit \"$CODE\"\n";
    fs::write(&curl, answers).expect("writes");
    fs::set_permissions(&curl, fs::Permissions::from_mode(0o755)).expect("may");
    let reply = |body: &str, code: &str| declares_targets(folder.path(), body, code);
    for (body, code) in [
        (r#"{"error": {"message": "why"}}"#, "22"),
        (r#"{"why": "no operation"}"#, "0"),
        (r#"{"name": "d/operations/1", "done": true, "error": {"message": "why"}}"#, "0"),
    ] {
        let (well, said) = reply(body, code);
        assert!(!well && said.contains("why"), "{body}: {said}");
    }
    assert_eq!(reply(r#"{"name": "d/operations/1", "done": true}"#, "0"), (true, String::new()));
}

fn sql_files(folder: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("reads").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".sql")).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), text(&format!("{folder}/{name}")))).collect()
}

#[test]
fn terraform_makes_the_tables_that_the_loader_was_built_with() {
    let files = sql_files("infra/schema");
    assert!(
        files.iter().all(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit())),
        "spanner.tf would not read it"
    );
    let terraform: Vec<String> = files.iter().flat_map(|(_, text)| as_terraform_reads(text)).collect();
    let code: Vec<String> = schema::statements().iter().flat_map(|statement| as_terraform_reads(statement)).collect();
    assert_eq!(terraform, code);
    for (statement, quote) in code.iter().flat_map(|statement| [(statement, '\''), (statement, '"')]) {
        assert!(!statement.contains(quote), "a string in a statement may hold -- or ;, which Terraform would not see");
    }
}

#[test]
fn target_tables_are_those_of_the_pipelines_that_terraform_deploys_by_default() {
    let pipelines = fs::read_dir(root().join("examples")).expect("examples").map(|entry| entry.expect("reads").path());
    let pipelines = pipelines.filter(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".toml") && !name.ends_with(".run.toml")
    });
    let wanted: BTreeMap<String, String> = pipelines
        .map(|path| Pipeline::parse(&fs::read_to_string(&path).expect("reads")).expect("is a pipeline"))
        .map(|pipeline| (format!("{}.sql", pipeline.table), ddl::target(&pipeline).ddl()))
        .collect();
    let there = sql_files("infra/schema/targets");
    for (name, ddl) in &wanted {
        let file = there.iter().find(|(there, _)| there == name).map(|(_, text)| text.as_str()).unwrap_or_default();
        assert!(file.ends_with(ddl), "run: tasuki schema examples/*.toml --out infra/schema/targets ({name})");
    }
    assert_eq!(there.len(), wanted.len(), "a table that no pipeline writes");
}

#[test]
fn the_store_has_every_role_that_somebody_works_as() {
    let statements = schema::statements();
    let spanner = text("infra/spanner.tf");
    for role in [LOADER_ROLE, SPLITTER_ROLE, READER_ROLE] {
        assert!(statements.contains(&format!("CREATE ROLE {role}")));
        assert!(spanner.contains(&format!("\"{role}\"")), "nobody works as {role}");
    }
}

#[test]
fn limits_that_terraform_s_rules_count_with_are_those_of_the_code() {
    let rules = text("infra/tests/rules.tftest.hcl");
    let counted = format!("{} * length(", ROWS_PER_SHARD.end());
    assert!(rules.contains(&counted) && rules.contains(&format!("<= {MUTATIONS_MAX}")), "a_shard_fits_one_commit");
}

#[test]
fn cloud_build_gets_all_that_the_image_is_built_from() {
    let (docker, cloud) = (text(".dockerignore"), text(".gcloudignore"));
    let cloud: BTreeSet<&str> = cloud.lines().collect();
    for name in docker.lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(cloud.contains(format!("!/{name}").as_str()), "{name} stays behind");
    }
    let hashed = text("infra/image.tf");
    for name in
        ["Cargo.toml", "Cargo.lock", "Dockerfile", ".dockerignore", "{functions,shared}/**", "infra/schema/*.sql"]
    {
        assert!(hashed.contains(&format!("\"{name}")), "the image's tag does not change with {name}");
    }
}

/// A file at the root that a program is made of: the image is built from what these three lists let through.
#[test]
fn what_the_programs_include_goes_into_the_image() {
    let mut sources = Vec::new();
    for folder in ["functions", "shared"] {
        rust_files(&root().join(folder), &mut sources);
    }
    let lists = [text(".dockerignore"), text(".gcloudignore"), text("infra/image.tf")];
    let mut included = 0;
    for source in sources {
        let code = fs::read_to_string(&source).expect("a source file");
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for path in code.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let path = source.parent().expect("its folder").join(path).canonicalize().expect("an included file");
            let path = path.strip_prefix(root().canonicalize().expect("the repository")).expect("a file of ours");
            let top = path.iter().next().and_then(|name| name.to_str()).expect("a name");
            let is_listed = |list: &String| {
                list.contains(&format!("!{top}\n"))
                    || list.contains(&format!("!/{top}\n"))
                    || list.contains(&format!("\"{top}\""))
            };
            if !["functions", "shared", "infra"].contains(&top) {
                assert!(lists.iter().all(is_listed), "{} includes {}: list it", source.display(), path.display());
                included += 1;
            }
        }
    }
    assert!(included > 0, "prices.toml is included");
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        match entry.is_dir() {
            true if entry.ends_with("tests") => {}
            true => rust_files(&entry, found),
            false if entry.extension().is_some_and(|extension| extension == "rs") && !entry.ends_with("tests.rs") => {
                found.push(entry)
            }
            false => {}
        }
    }
}
