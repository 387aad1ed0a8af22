use super::*;
use crate::pipeline::DEFAULT_MODEL;

/// Noon of 2026-11-20, 2026-12-31 and 2027-01-01.
const DAYS: [Millis; 3] = [Millis(1_795_176_000_000), Millis(1_798_718_400_000), Millis(1_798_804_800_000)];

#[test]
fn the_file_says_what_the_models_cost() {
    let price = |model: &str, tier| Catalogue::shipped().price(model, tier, DAYS[0]);
    let standard = Price { input: 300_000, output: 2_500_000, thought: 2_500_000, cached: 30_000 };
    assert_eq!(price(DEFAULT_MODEL, Tier::Standard), Some(standard));
    assert_eq!(price("gemini-3.5-flash-lite-001", Tier::Standard), Some(standard), "a version");
    assert_eq!(price("gemini-3.5-flash-lite", Tier::Flex).map(|price| price.input), Some(150_000));
    assert_eq!(price("gemini-3.5-flash-lite", Tier::Priority), None, "unknown is not 0");
    assert_eq!(price("gemini-3.5-flash-lite-pro", Tier::Standard), None);
    assert_eq!(price("gemini-3.7-flash", Tier::Standard), None);
}

#[test]
fn a_price_counts_from_its_day_on() {
    let input = DAYS.map(|day| Catalogue::shipped().price("gemini-3.8-flash", Tier::Standard, day).unwrap().input);
    assert_eq!(input, [750_000, 750_000, 1_500_000]);
    assert_eq!(Catalogue::shipped().price("gemini-3.8-flash", Tier::Standard, Millis(0)), None);
}

#[test]
fn what_is_cached_is_not_paid_twice_and_thoughts_are_output() {
    let price = Price::per_million(0.30, 2.50, None, Some(0.03));
    let usage = Usage { prompt: 600, output: 100, thought: 20, cached: 400 };
    assert_eq!(price.of(usage), 200 * 300_000 + 400 * 30_000 + 120 * 2_500_000);
    assert_eq!(Price::per_million(0.30, 2.50, None, None).of(usage), 600 * 300_000 + 120 * 2_500_000);
}

#[test]
fn thoughts_may_have_a_price_of_their_own_and_the_dearest_is_set_aside() {
    let entry = "[[model]]\nname = \"m\"\nprices = [{ tier = \"standard\", input = 1, output = 2, thought = 5, \
            from = 2026-01-01, read = 2026-01-01, source = \"page\" }]";
    let listed = toml::from_str::<Catalogue>(entry).unwrap().price("m", Tier::Standard, DAYS[0]).unwrap();
    assert_eq!(listed, Price::per_million(1.0, 2.0, Some(5.0), None));
    let usage = Usage { prompt: 10, output: 100, thought: 1_000, cached: 0 };
    assert_eq!(listed.of(usage), (10 + 200 + 5_000) * 1_000_000);
    let worst = Worst { prompt: 10, output: 100 };
    assert_eq!(listed.of(worst), (10 + 500) * 1_000_000, "all of it may be thoughts");
    let cheap = Price::per_million(1.0, 2.0, Some(0.0), Some(3.0));
    assert_eq!(cheap.of(worst), (30 + 200) * 1_000_000, "or none, and all of the prompt cached");
}

#[test]
fn a_model_is_warned_of_before_it_retires() {
    let catalogue: Catalogue = toml::from_str("[[model]]\nname = \"m\"\nretires = 2027-01-19").unwrap();
    // Sixty days before are 2026-11-20.
    let before = Millis(DAYS[0].0 - 24 * 60 * 60 * 1_000);
    assert_eq!(catalogue.life("m", before), Life::Long);
    assert_eq!(catalogue.life("m", DAYS[0]), Life::Ends("2027-01-19".into()));
    assert_eq!(catalogue.life("m", Millis(DAYS[0].0 + 60 * 24 * 60 * 60 * 1_000)), Life::Ended("2027-01-19".into()));
    assert_eq!(Catalogue::shipped().life("gemini-2.5-flash", DAYS[0]), Life::Ended("2026-10-20".into()));
    assert_eq!(Catalogue::shipped().life("whatever", DAYS[0]), Life::Long);
}

#[test]
fn a_model_that_would_think_more_than_is_said_begins_no_run() {
    let refuses = |name: &str, thinking| {
        let model = ModelSettings { name: name.into(), thinking: Some(thinking), ..ModelSettings::default() };
        Catalogue::shipped().refuses_model(&model, DAYS[0]).pop().map(|(_, why)| why)
    };
    let why = refuses("gemini-3.7-flash", Thinking::Minimal).unwrap();
    assert!(why.contains("thinks at \"medium\"") && why.ends_with("\"low\" or \"medium\" or \"high\""), "{why}");
    assert_eq!(refuses("gemini-3.7-flash", Thinking::Low), None);
    assert_eq!(refuses(DEFAULT_MODEL, Thinking::Minimal), None);
    assert_eq!(refuses("whatever", Thinking::Minimal), None);
    let retired = refuses("gemini-2.5-flash", Thinking::Minimal).unwrap();
    assert!(retired.contains("retired on 2026-10-20: name another one"), "{retired}");
    let place = Place { model: "gemini-2.5-pro".into(), location: Some("eu".into()) };
    let falls_back = ModelSettings { fallback: vec![place], ..ModelSettings::default() };
    let retired = Catalogue::shipped().refuses_model(&falls_back, DAYS[0]).remove(0).1;
    assert!(retired.contains("gemini-2.5-pro@eu retired on 2026-10-20: remove it"), "{retired}");
    let warns = |name: &str| {
        let model = ModelSettings { name: name.into(), ..ModelSettings::default() };
        Catalogue::shipped().warns(&model, DAYS[0])
    };
    assert!(warns("gemini-9").unwrap().contains("not in prices.toml"));
    assert_eq!(warns(DEFAULT_MODEL), None);
    assert_eq!(Catalogue::shipped().least_thinking("gemini-3.7-flash"), Some(Thinking::Low));
}

#[test]
fn all_that_is_known_against_a_pipeline_is_told_at_once_each_at_its_place() {
    let text = "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ t }}'\n[answer.a]\ntype = 'string'\n[model]\n\
            name = 'gemini-3.7-flash'\nmax_output_tokens = 9\nfallback = ['gemini-3.5-flash', 'gemini-2.5-pro@eu']\n\
            [run]\nmax_cost_usd = 5\n[target]\ntable = 't'\n";
    let told = |text: &str| {
        let problems = Catalogue::shipped().refuses(&Pipeline::parse(text).unwrap(), text, DAYS[0]);
        problems.map(|problems| problems.in_file("p.toml")).unwrap_or_default()
    };
    let all = told(text);
    let starts = [
        "p.toml:7:2: gemini-3.7-flash cannot think", // where [model] thinking would stand
        "p.toml:8:8: max_cost_usd needs",
        "p.toml:10:33: gemini-2.5-pro@eu retired on 2026-10-20",
        "p.toml:10:33: max_cost_usd needs",
    ];
    assert_eq!(all.lines().count(), starts.len(), "{all}");
    assert!(all.lines().zip(starts).all(|(line, start)| line.starts_with(start)), "{all}");
    assert_eq!(
        told(&text.replace("3.7", "3.5").replace(", 'gemini-2.5-pro@eu'", "@eu'").replace("flash'@eu", "flash@eu")),
        ""
    );
}

#[test]
fn a_cap_on_the_cost_needs_the_price_of_every_model_that_may_be_asked() {
    let mut pipeline = Pipeline::parse(include_str!("../../../../examples/themes.toml")).unwrap();
    let place =
        |model: &str, location: Option<&str>| Place { model: model.into(), location: location.map(str::to_owned) };
    let refuses = |pipeline: &Pipeline| {
        let told = Catalogue::shipped().refuses_cap(pipeline, DAYS[0]).into_iter().map(|(_, why)| why);
        Some(told.collect::<Vec<_>>().join("\n")).filter(|told| !told.is_empty())
    };
    pipeline.model.name = "mine".into();
    assert_eq!(refuses(&pipeline), None, "without a cap nobody needs a price");
    pipeline.run.max_cost = Some(picodollars(5.0));
    let why = refuses(&pipeline).unwrap();
    assert!(why.contains("write [model.price] for mine, or remove max_cost_usd"), "{why}");
    pipeline.model.fallback = vec![place(DEFAULT_MODEL, Some("eu")), place("theirs", Some("us"))];
    let why = refuses(&pipeline).unwrap();
    assert!(why.contains("for mine, or remove max_cost_usd\n") && why.contains("remove theirs@us from"), "{why}");
    assert!(!why.contains("that of gemini"), "its price is known: {why}");
    pipeline.model.price = Some(Price::per_million(0.0, 0.0, None, None));
    let why = refuses(&pipeline).unwrap();
    assert!(!why.contains("for mine") && why.contains("that of theirs@us (tier standard;"), "its model's alone: {why}");
    assert!(why.contains("whose price it has (gemini-3.5-flash-lite, gemini-3.5-flash,"), "{why}");
    assert!(why.contains("or add its price to prices.toml") && why.ends_with("or remove max_cost_usd"), "{why}");
    pipeline.model.fallback.pop();
    assert_eq!(refuses(&pipeline), None);
    pipeline.model.tier = Tier::Priority;
    assert_eq!(refuses(&pipeline), None, "in eu only the standard tier is served, and its price is known");
    pipeline.model.fallback = vec![place(DEFAULT_MODEL, Some("global"))];
    assert!(refuses(&pipeline).unwrap().contains("(tier priority; "), "a price of another tier is none");
    pipeline.model.fallback = vec![place("mine", Some("global"))];
    assert_eq!(refuses(&pipeline), None, "the same model costs the same elsewhere");
    pipeline.model.fallback = vec![place("mine", Some("eu"))];
    assert!(refuses(&pipeline).unwrap().contains("mine@eu (tier standard; "), "there it is another tier");
}
