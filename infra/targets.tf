# The pipelines' tables. `tasuki schema` writes one file for each; its statements change nothing where they were run before, so
# they are run again whenever a file has changed. Not through `ddl` of the database: there a changed statement replaces it.

locals {
  target_files = { for name in fileset("${path.module}/schema/targets", "*.sql") : trimsuffix(name, ".sql") => file("${path.module}/schema/targets/${name}") }
  target_statements = flatten([for table in sort(keys(local.target_files)) : compact([
    for statement in split(";", replace(local.target_files[table], "/--[^\n]*/", "")) :
    trimspace(replace(statement, "/\\s+/", " "))
  ])])
}

# The provider cannot run a statement, so this asks Spanner itself, and waits until it is done.
resource "terraform_data" "targets" {
  triggers_replace = [local.spanner_database, local.target_statements]

  provisioner "local-exec" {
    command = <<-SH
      set -eu
      reply=$(mktemp)
      trap 'rm -f "$reply"' EXIT
      refused() { cat "$reply" >&2; exit 1; }
      # The token goes through a pipe: everybody on this machine may list a command's arguments. Into a file, because that holds the
      # last try's reply only.
      google() {
        printf 'Authorization: Bearer %s' "$TOKEN" | curl --fail-with-body --silent --show-error --retry 5 --retry-all-errors \
          -H @- -H 'Content-Type: application/json' -o "$reply" "$@" || refused
      }
      google -X PATCH -d "$BODY" "$API/$DATABASE/ddl"
      if [ ! -s "$reply" ]; then exit 0; fi # a recorder in curl's place, for a trial: Spanner never answers nothing
      operation=$(sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' "$reply" | head -n 1)
      if [ -z "$operation" ]; then refused; fi
      while ! grep -q '"done": *true' "$reply"; do
        sleep 2
        google "$API/$operation"
      done
      if grep -q '"error"' "$reply"; then refused; fi
    SH
    environment = {
      TOKEN    = ephemeral.google_client_config.me.access_token
      API      = "https://spanner.googleapis.com/v1"
      DATABASE = local.spanner_database
      BODY     = jsonencode({ statements = local.target_statements })
    }
  }

  lifecycle {
    # A database made anew has the same name.
    replace_triggered_by = [google_spanner_database.main]

    precondition {
      condition     = length(local.tables_missing) == 0
      error_message = "No table is declared for ${join(", ", local.tables_missing)}. Run: tasuki schema ${local.pipelines_dir}/*.toml --out infra/schema/targets"
    }
  }
}
