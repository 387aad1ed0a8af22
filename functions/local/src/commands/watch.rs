//! Which dropped files are whole: those that nobody writes any more.

use std::collections::BTreeMap;
use std::time::Duration;
use tasuki_relay::names::Dropped;
use tasuki_relay::ports::{Generation, Meta};
use tokio::time::Instant;

/// A file whose size and time have not changed for so long is whole.
pub(crate) const STILL_FOR: Duration = Duration::from_secs(2);

/// Ends of names that programs give to files that they still write, or keep beside a file.
const UNFINISHED: [&str; 6] = ["~", ".tmp", ".part", ".partial", ".crdownload", ".swp"];

/// Whether a file of this name is meant to be read.
pub(crate) fn is_data(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    !file.starts_with('.') && !UNFINISHED.iter().any(|end| lower.ends_with(end))
}

/// What was seen of the inbox.
#[derive(Debug, Default)]
pub(crate) struct Watch(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    generation: Generation,
    size: u64,
    since: Instant,
    told: bool,
}

impl Watch {
    /// The files that are whole now, each version once. `listed` are all that are there.
    pub(crate) fn look(&mut self, listed: Vec<Meta>, now: Instant) -> Vec<(Dropped, Meta)> {
        let mut before = std::mem::take(&mut self.0);
        let mut whole = Vec::new();
        for meta in listed {
            let Ok(dropped) = Dropped::parse_object(&meta.name) else { continue };
            if !is_data(&dropped.file) {
                continue;
            }
            let (generation, size) = (meta.generation, meta.size);
            let same = before.remove(&meta.name).filter(|seen| (seen.generation, seen.size) == (generation, size));
            let mut seen = same.unwrap_or(Seen { generation, size, since: now, told: false });
            if !seen.told && now.duration_since(seen.since) >= STILL_FOR {
                seen.told = true;
                whole.push((dropped, meta.clone()));
            }
            self.0.insert(meta.name, seen);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tasuki_relay::clock::{Clock, Millis};

    fn file(name: &str, generation: i64, size: u64) -> Meta {
        Meta { name: name.into(), generation, created: Millis(0), size }
    }

    #[test]
    fn a_file_is_told_once_when_it_was_still_for_two_seconds_and_again_when_it_changed() {
        let (start, mut watch) = (Clock::system().instant(), Watch::default());
        let mut told = |at: u64, generation, size| {
            let listed = vec![file("p/a.csv", generation, size)];
            watch.look(listed, start + Duration::from_millis(at)).len()
        };
        assert_eq!([told(0, 1, 1), told(1_500, 1, 2), told(3_000, 1, 2), told(3_500, 1, 2)], [0, 0, 0, 1]);
        assert_eq!([told(9_000, 1, 2), told(9_500, 7, 2), told(11_500, 7, 2)], [0, 0, 1]);
    }

    #[test]
    fn unfinished_files_and_folders_are_left_alone() {
        let (start, mut watch) = (Clock::system().instant(), Watch::default());
        let names = ["p/a.csv~", "p/a.csv.part", "p/b.CRDOWNLOAD", "p/.a.csv", "p/x/a.csv", "a.csv", "p/good.csv"];
        let listed = || names.iter().map(|name| file(name, 1, 1)).collect::<Vec<_>>();
        watch.look(listed(), start);
        let whole: Vec<_> = watch.look(listed(), start + STILL_FOR).into_iter().map(|(_, meta)| meta.name).collect();
        assert_eq!(whole, ["p/good.csv"]);
    }
}
