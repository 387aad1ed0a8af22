//! What a check comes to, and how it is told.

use serde::Serialize;
use std::fmt::Write;
use tasuki_google::rest::Unseen;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// It works, and will trouble somebody.
    Warn,
    /// It does not work, or is not safe.
    Fail,
    /// It cannot be seen.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// "subscription eventarc-splitter".
    pub(super) what: String,
    pub(super) state: State,
    pub(super) said: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

/// What is wrong with one thing; nothing wrong is one check that says so.
pub(super) struct Findings {
    what: String,
    checks: Vec<Check>,
}

/// What brings most things back to what was deployed.
pub(super) const APPLY: &str = "run `terraform apply` again";

impl Findings {
    pub(super) fn of(what: &str) -> Findings {
        Findings { what: what.to_owned(), checks: Vec::new() }
    }

    /// Notes what is wrong unless `holds`.
    pub(super) fn expect(&mut self, holds: bool, state: State, said: impl Into<String>, mend: &str) {
        if !holds {
            let mend = Some(mend.to_owned()).filter(|mend| !mend.is_empty());
            self.checks.push(Check { what: self.what.clone(), state, said: said.into(), mend });
        }
    }

    /// Fails unless a setting is the one that was deployed.
    pub(super) fn same(&mut self, name: &str, there: Option<&str>, wanted: &str) {
        let said = match there {
            Some(there) => format!("{name} is {there}, the deployment has {wanted}"),
            None => format!("{name} is not set, the deployment has {wanted}"),
        };
        self.expect(there == Some(wanted), State::Fail, said, APPLY);
    }

    /// All that was found; `fine` is said where that is nothing.
    pub(super) fn or_fine(self, fine: impl Into<String>) -> Vec<Check> {
        match self.checks.is_empty() {
            true => vec![Check { what: self.what, state: State::Ok, said: fine.into(), mend: None }],
            false => self.checks,
        }
    }
}

impl Check {
    /// Something that cannot be seen, and the permission that it takes.
    pub(super) fn unseen(what: &str, permission: &str, unseen: &Unseen) -> Check {
        let (state, mend) = match unseen {
            Unseen::Absent => (State::Fail, format!("{APPLY}, and `terraform output -json deployment > tasuki.json`")),
            Unseen::Denied(Some(reason)) if reason == "SERVICE_DISABLED" => {
                (State::Unknown, "enable the API, or name a project where it is on with `gcloud auth application-default set-quota-project`".to_owned())
            }
            Unseen::Denied(_) => (State::Unknown, format!("to see it takes {permission}")),
            Unseen::Unreachable(_) => (State::Unknown, "look again later, or at your network".to_owned()),
        };
        Check { what: what.to_owned(), state, said: unseen.to_string(), mend: Some(mend) }
    }
}

/// The checks for people: what is wrong stands out, and a line below says what to do.
pub(super) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let word = match check.state {
            State::Ok => "ok",
            State::Warn => "WARN",
            State::Fail => "FAIL",
            State::Unknown => "?",
        };
        put(&mut text, format_args!("{word:<5} {}: {}\n", check.what, check.said));
        if let Some(mend) = &check.mend {
            put(&mut text, format_args!("      → {mend}\n"));
        }
    }
    let [ok, warn, fail, unknown] = counts(checks);
    put(&mut text, format_args!("\n{ok} ok, {warn} to look at, {fail} wrong, {unknown} that cannot be seen\n"));
    text
}

/// How many are ok, warn, fail, unknown.
pub(super) fn counts(checks: &[Check]) -> [usize; 4] {
    [State::Ok, State::Warn, State::Fail, State::Unknown]
        .map(|state| checks.iter().filter(|check| check.state == state).count())
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_seen_is_unknown_with_its_permission_and_what_is_gone_fails() {
        let denied = Check::unseen("topic t", "pubsub.topics.get", &Unseen::Denied(None));
        assert_eq!(denied.state, State::Unknown);
        assert!(text(std::slice::from_ref(&denied)).contains("pubsub.topics.get"), "{denied:?}");
        let gone = Check::unseen("topic t", "pubsub.topics.get", &Unseen::Absent);
        assert_eq!(counts(&[denied, gone]), [0, 0, 1, 1]);
    }
}
