//! What a generator pays, and whom: fallbacks, the cache, outages; in paused time.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tasuki_relay::record::Usage;

/// A model that is told what to say by what it is asked.
struct Script<F> {
    says: F,
    /// Calls by model.
    calls: Mutex<BTreeMap<String, u64>>,
    clock: Clock,
    start: tokio::time::Instant,
}

impl<F: Fn(&Ask, Duration) -> Result<Reply, Fault> + Send + Sync> Script<F> {
    /// Each reply takes half a second. The time is that since now.
    fn new(clock: &Clock, says: F) -> Arc<Script<F>> {
        Arc::new(Script { says, calls: Mutex::default(), clock: clock.clone(), start: clock.instant() })
    }

    fn calls(&self, model: &str) -> u64 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied().unwrap_or(0)
    }
}

#[async_trait]
impl<F: Fn(&Ask, Duration) -> Result<Reply, Fault> + Send + Sync> Model for Script<F> {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let model = &ask.pipeline.model.name;
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(model.clone()).or_default() += 1;
        sleep(Duration::from_millis(500)).await;
        (self.says)(ask, self.clock.instant().duration_since(self.start))
    }
}

/// An answer of the model that was asked.
fn answered(ask: &Ask) -> Result<Reply, Fault> {
    answer().map(|reply| Reply { model: format!("{}-001", ask.pipeline.model.name), ..reply })
}

const BUSY: Fault = Fault::Busy { retry_after: None };

fn with(settings: &str) -> String {
    PIPELINE.replace("[target]", &format!("{settings}\n[target]"))
}

/// Has the shard worked on until it has its answers: sweeps come every minute.
async fn drive(generator: &Arc<Generator>, event: &Event) {
    for _ in 0..60 {
        if generator.handle(event).await == Verdict::Done {
            return;
        }
        sleep(Duration::from_secs(60)).await;
    }
    panic!("no answers after an hour");
}

async fn answers_of(objects: &MemoryObjects, event: &Event) -> (Header, Vec<AnswerLine>) {
    let object = objects.read(Bucket::Answers, &event.name, None).await.expect("answers").expect("is there");
    decode(&object.body).expect("is whole")
}

fn models(lines: &[AnswerLine]) -> BTreeMap<&str, usize> {
    let mut models = BTreeMap::new();
    for line in lines {
        let Outcome::Answer(answer) = &line.outcome else { panic!("{line:?}") };
        *models.entry(answer.model.as_str()).or_default() += 1;
    }
    models
}

#[tokio::test(start_paused = true)]
async fn a_model_that_turns_everything_away_is_left_for_its_fallback_and_comes_back() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let text = with("[model]\nname = \"first\"\nfallback = [\"second@eu\"]\n[run]\nmax_in_flight = 10");
    let model = Script::new(&clock, |ask, at| match ask.pipeline.model.name.as_str() {
        "first" if at < Duration::from_secs(90) => Err(BUSY),
        _ => answered(ask),
    });
    let generator = generator(objects.clone(), model.clone(), &clock);
    let early = begin_as(&objects, &run(1), 100, &text).await;
    drive(&generator, &early).await;
    let (_, lines) = answers_of(&objects, &early).await;
    assert_eq!(models(&lines), BTreeMap::from([("second-001@eu", 100)]), "each row says who answered");
    assert!(model.calls("first") < 80, "{}", model.calls("first"));
    assert!(lines.iter().all(|line| line.spent.paid_calls == 1), "to be turned away costs nothing");
    assert!(lines.iter().all(|line| line.spent.attempts == 1), "and is no attempt");

    sleep(Duration::from_secs(60)).await; // its calls are tried again now and then
    let late = begin_as(&objects, &run(2), 100, &text).await;
    drive(&generator, &late).await;
    assert_eq!(models(&answers_of(&objects, &late).await.1), BTreeMap::from([("first-001", 100)]));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_names_a_time_of_minutes_is_left_for_its_fallback_at_once() {
    for hold in [65, 600] {
        let clock = Clock::starting_at(START);
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let text = with("[model]\nname = \"first\"\nfallback = [\"second\"]\n[run]\nmax_in_flight = 10");
        let busy = Fault::Busy { retry_after: Some(Duration::from_secs(hold)) };
        let model = Script::new(&clock, move |ask, _| match ask.pipeline.model.name.as_str() {
            "first" => Err(busy.clone()),
            _ => answered(ask),
        });
        let generator = generator(objects.clone(), model.clone(), &clock);
        let (event, start) = (begin_as(&objects, &run(1), 100, &text).await, clock.instant());
        drive(&generator, &event).await;
        assert_eq!(models(&answers_of(&objects, &event).await.1), BTreeMap::from([("second-001", 100)]));
        assert!(clock.instant() - start < Duration::from_secs(60), "nobody waits out {hold} s");
        assert!(model.calls("first") <= 10, "{}", model.calls("first"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_fails_of_what_its_run_allows_fails_no_row_of_another() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let model = Script::new(&clock, |ask, _| match ask.pipeline.model.max_output_tokens {
        Some(10) => answered(ask).map(|reply| Reply { finish: Some("MAX_TOKENS".into()), text: "[".into(), ..reply }),
        _ => answered(ask),
    });
    let generator = generator(objects.clone(), model, &clock);
    let [little, much] =
        [10, 1_000].map(|tokens| with(&format!("[model]\nname = \"m\"\nmax_output_tokens = {tokens}")));
    let cut = begin_as(&objects, &run(1), 10, &little).await;
    let fine = begin_as(&objects, &run(2), 10, &much).await;
    tokio::join!(drive(&generator, &cut), drive(&generator, &fine));
    let failed =
        answers_of(&objects, &cut).await.1.into_iter().filter(|line| matches!(line.outcome, Outcome::Failed(_)));
    assert_eq!(failed.count(), 10);
    assert_eq!(models(&answers_of(&objects, &fine).await.1), BTreeMap::from([("m-001", 10)]));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_gone_is_left_at_once_and_without_a_fallback_the_machine_stands_still() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let model = Script::new(&clock, |ask, _| match ask.pipeline.model.name.as_str() {
        "gone" => Err(Fault::Systemic("the model is not known".into())),
        _ => answered(ask),
    });
    let generator = generator(objects.clone(), model.clone(), &clock);
    let saved = begin_as(&objects, &run(1), 50, &with("[model]\nname = \"gone\"\nfallback = [\"other\"]")).await;
    assert_eq!(generator.handle(&saved).await, Verdict::Done);
    assert_eq!(models(&answers_of(&objects, &saved).await.1), BTreeMap::from([("other-001", 50)]));
    assert_eq!(generator.stopped_by(), None);
    let lost = begin_as(&objects, &run(2), 50, &with("[model]\nname = \"gone\"")).await;
    assert!(matches!(generator.handle(&lost).await, Verdict::Later(Why::Systemic(_))));
    assert!(objects.stat(Bucket::Answers, &lost.name).await.expect("answers").is_none(), "no row failed");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_minute_fails_no_row_and_pays_for_none_twice() {
    for fault in [BUSY, Fault::Unavailable("HTTP 503".into())] {
        let clock = Clock::starting_at(START);
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let (from, to) = (Duration::from_secs(2), Duration::from_secs(62));
        let down = fault.clone();
        let model =
            Script::new(&clock, move |ask, at| if at < from || at > to { answered(ask) } else { Err(down.clone()) });
        let generator = generator(objects.clone(), model, &clock);
        let event = begin_as(&objects, &run(1), 100, &with("[run]\nmax_in_flight = 10")).await;
        drive(&generator, &event).await;
        let (_, lines) = answers_of(&objects, &event).await;
        assert_eq!(models(&lines).values().sum::<usize>(), 100);
        assert!(lines.iter().all(|line| line.spent.paid_calls == 1), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_costs_nothing_and_what_two_processes_ask_at_once_is_counted() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let text = with("[model]\nname = \"m\"\n[run]\nreuse_answers = true");
    let answers = AtomicU64::new(0);
    let model = Script::new(&clock, move |ask, _| {
        let theme = format!("answer {}", answers.fetch_add(1, Relaxed)); // no two are equal
        answered(ask).map(|reply| Reply { text: json!({"theme": theme}).to_string(), ..reply })
    });
    let (one, other) =
        (generator(objects.clone(), model.clone(), &clock), generator(objects.clone(), model.clone(), &clock));
    let events = [begin_as(&objects, &run(1), 20, &text).await, begin_as(&objects, &run(2), 20, &text).await];
    let late = async {
        sleep(Duration::from_millis(100)).await;
        drive(&other, &events[1]).await;
    };
    tokio::join!(drive(&one, &events[0]), late);
    let duplicates = |lines: &[AnswerLine]| lines.iter().map(|line| line.spent.duplicates).sum::<u32>();
    let (first, second) = (answers_of(&objects, &events[0]).await.1, answers_of(&objects, &events[1]).await.1);
    assert_eq!((model.calls("m"), duplicates(&first), duplicates(&second)), (40, 0, 20));

    let again = begin_as(&objects, &run(3), 20, &text).await;
    drive(&one, &again).await;
    let known = answers_of(&objects, &again).await.1;
    assert_eq!(model.calls("m"), 40, "all of it is known");
    assert!(known.iter().all(|line| line.spent == Spent { reused: 1, ..Spent::default() }), "{known:?}");
    let outcomes = |lines: &[AnswerLine]| lines.iter().map(|line| line.outcome.clone()).collect::<Vec<_>>();
    assert_eq!(outcomes(&known), outcomes(&first), "the answer that was first stays");
    let other_question = begin_as(&objects, &run(4), 20, &text.replace("{{ n }}", "7{{ n }}")).await;
    drive(&one, &other_question).await;
    assert_eq!(model.calls("m"), 60, "another prompt is another question");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_storage_keeps_from_us_costs_calls_and_no_rows() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let text = with("[model]\nname = \"m\"\n[run]\nreuse_answers = true");
    let model = Script::new(&clock, |ask, _| answered(ask));
    let first = begin_as(&objects, &run(1), 5, &text).await;
    let own = generator(objects.clone(), model.clone(), &clock);
    drive(&own, &first).await;
    let (_, lines) = answers_of(&objects, &first).await;
    // What was kept is not what the pipeline asks for any more, or no answer at all.
    for (line, broken) in
        lines.iter().zip(["{}", "no JSON", "{\"values\":{\"theme\":7},\"fingerprint\":\"f\",\"model\":\"m\"}"])
    {
        let Outcome::Answer(answer) = &line.outcome else { panic!("{line:?}") };
        let name = names::cached(&answer.fingerprint);
        let kept = objects.stat(Bucket::State, &name).await.expect("answers").expect("is kept");
        objects.replace(Bucket::State, &name, broken.into(), kept.generation).await.expect("replaces");
    }
    let again = begin_as(&objects, &run(2), 5, &text).await;
    drive(&own, &again).await;
    assert_eq!(model.calls("m"), 5 + 3);
    let (_, lines) = answers_of(&objects, &again).await;
    assert_eq!(models(&lines).values().sum::<usize>(), 5);
    assert!(lines.iter().all(|line| line.spent.duplicates == 0), "nobody else asked: {lines:?}");
    drive(&own, &begin_as(&objects, &run(3), 5, &text).await).await;
    assert_eq!(model.calls("m"), 5 + 3, "what was spoiled is replaced");
}

/// A second shard of the run that `begin` has begun.
async fn another_shard(objects: &MemoryObjects, run: &RunId, rows: std::ops::Range<u64>) -> Event {
    let header = Header { first: rows.start, totals: None, ..header(run, 1, rows.end - rows.start) };
    let line = |n: u64| {
        let row = json!({"id": format!("k{n}"), "n": n}).as_object().cloned().unwrap_or_default();
        ShardLine { ordinal: n, key: Some(Key::Text(format!("k{n}"))), content: Content::Row(Arc::new(row)) }
    };
    let name = ShardId { run: run.clone(), shard: ShardIndex(1) }.object();
    put(objects, Bucket::Shards, &name, encode(&header, &rows.map(line).collect::<Vec<_>>())).await;
    Event { bucket: Bucket::Shards, name, generation: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_asked_again_to_see_whether_the_model_lives_is_wasted_once_for_each_time() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let model = Script::new(&clock, |ask, _| match ask.prompt.as_str() {
        "0" => answered(ask).map(|reply| Reply { usage: Usage { prompt: 100, ..Usage::default() }, ..reply }),
        _ => Err(Fault::Unavailable("HTTP 500".into())),
    });
    let generator = generator(objects.clone(), model, &clock);
    drive(&generator, &begin(&objects, &run(1), 1).await).await;
    let dead = another_shard(&objects, &run(1), 1..2).await;
    drive(&generator, &dead).await;
    let (header, lines) = answers_of(&objects, &dead).await;
    assert!(matches!(&lines[0].outcome, Outcome::Failed(failed) if failed.reason == "server_error"), "{lines:?}");
    let probes = header.wasted_answers;
    assert!((1..=3).contains(&probes), "one an epoch: {probes}");
    assert_eq!((header.wasted.calls, header.wasted.usage.prompt), (probes, 100 * probes));
}

#[tokio::test(start_paused = true)]
async fn answers_of_an_earlier_run_do_not_prove_that_the_model_takes_the_request() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let text = with("[model]\nname = \"m\"\n[run]\nreuse_answers = true");
    let model = Script::new(&clock, |ask, at| match at < Duration::from_secs(60) {
        true => answered(ask),
        false => Err(Fault::Invalid("HTTP 400".into())),
    });
    let generator = generator(objects.clone(), model, &clock);
    drive(&generator, &begin_as(&objects, &run(1), 10, &text).await).await;
    sleep(Duration::from_secs(60)).await;
    let refused = begin_as(&objects, &run(2), 80, &text).await;
    for _ in 0..5 {
        assert!(matches!(generator.handle(&refused).await, Verdict::Later(_)));
        sleep(Duration::from_secs(120)).await;
    }
    // A row that failed would be in a checkpoint: one is tried again each time.
    for segment in objects.list(Bucket::State, "ckpt/", None, 1_000).await.expect("lists") {
        let segment = objects.read(Bucket::State, &segment.name, None).await.expect("answers").expect("is there");
        assert!(!String::from_utf8_lossy(&segment.body).contains("rejected"), "no row failed");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stops_one_runs_model_stops_no_run_of_another() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let model = Script::new(&clock, |ask, _| match ask.pipeline.model.name.as_str() {
        "gone" => Err(Fault::Systemic("the model is not known".into())),
        _ => answered(ask),
    });
    let generator = generator(objects.clone(), model, &clock);
    let lost = begin_as(&objects, &run(1), 5, &with("[model]\nname = \"gone\"")).await;
    assert!(matches!(generator.handle(&lost).await, Verdict::Later(Why::Systemic(_))));
    let fine = begin_as(&objects, &run(2), 5, &with("[model]\nname = \"there\"")).await;
    assert_eq!(generator.handle(&fine).await, Verdict::Done);
    assert!(matches!(generator.handle(&lost).await, Verdict::Later(Why::Systemic(_))), "it is still gone");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_refuses_the_request_fails_no_row() {
    let clock = Clock::starting_at(START);
    let objects = Arc::new(MemoryObjects::new(clock.clone()));
    let text = with("[model]\nname = \"first\"\nfallback = [\"second\"]\n[run]\nmax_in_flight = 10");
    let model = Script::new(&clock, |ask, at| match ask.pipeline.model.name.as_str() {
        "first" if (5..=120).contains(&at.as_secs()) => Err(BUSY),
        "first" => answered(ask),
        _ => Err(Fault::Invalid("HTTP 400".into())),
    });
    let generator = generator(objects.clone(), model.clone(), &clock);
    let event = begin_as(&objects, &run(1), 200, &text).await;
    drive(&generator, &event).await;
    assert_eq!(models(&answers_of(&objects, &event).await.1), BTreeMap::from([("first-001", 200)]));
    assert!((1..=20).contains(&model.calls("second")), "{}", model.calls("second"));
}
