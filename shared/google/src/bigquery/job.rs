//! A job as BigQuery tells it.

use super::fault::{ErrorProto, JobFault};
use serde::Deserialize;
use tasuki_relay::clock::Millis;

/// The parts of a job that are looked at (REST reference, Job).
#[derive(Debug, Deserialize)]
pub struct Job {
    #[serde(default)]
    status: Status,
    #[serde(default)]
    statistics: Times,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    state: String,
    error_result: Option<ErrorProto>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    creation_time: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Waiting or at work.
    Running,
    /// It succeeded. Its rows are those of this moment.
    Done(Millis),
    /// It failed, then.
    Failed(JobFault, Millis),
}

impl Job {
    /// How it stands; `None` when a job that is done does not say when.
    pub fn standing(&self) -> Option<Standing> {
        if self.status.state != "DONE" {
            return Some(Standing::Running);
        }
        let Times { creation_time, start_time, end_time } = &self.statistics;
        let started = start_time.as_deref().or(creation_time.as_deref()).and_then(millis);
        match &self.status.error_result {
            None => started.map(Standing::Done),
            Some(error) => {
                end_time.as_deref().and_then(millis).or(started).map(|at| Standing::Failed(error.of_job(), at))
            }
        }
    }
}

/// Milliseconds since 1970, in decimal digits.
fn millis(text: &str) -> Option<Millis> {
    text.parse().ok().map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> Option<Standing> {
        serde_json::from_str::<Job>(text).unwrap().standing()
    }

    #[test]
    fn a_job_is_done_only_when_it_says_so() {
        for state in ["PENDING", "RUNNING", ""] {
            assert_eq!(standing(&format!(r#"{{"status":{{"state":"{state}"}}}}"#)), Some(Standing::Running));
        }
        let times = r#""statistics":{"creationTime":"1","startTime":"2","endTime":"3"}"#;
        assert_eq!(standing(&format!(r#"{{"status":{{"state":"DONE"}},{times}}}"#)), Some(Standing::Done(Millis(2))));
        let failed = format!(r#"{{"status":{{"state":"DONE","errorResult":{{"reason":"backendError"}}}},{times}}}"#);
        let fault = JobFault::Passes("backendError".into());
        assert_eq!(standing(&failed), Some(Standing::Failed(fault, Millis(3))));
        assert_eq!(standing(r#"{"status":{"state":"DONE"}}"#), None);
    }
}
