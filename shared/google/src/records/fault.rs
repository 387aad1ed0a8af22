//! What an error of Spanner means to the relay. Its texts quote keys and values: only its code is passed on.

use google_cloud_gax::error::rpc::Code;
use google_cloud_spanner::Error;
use tasuki_relay::ports::RecordsError;

/// An error of Spanner, by what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It may work later, or was done and the reply lost.
    Passing(&'static str),
    /// The caller may not do this, whatever it writes.
    Denied(&'static str),
    /// Something that was named is not there.
    Absent,
    /// The request itself: a row breaches a constraint, or the schema is another.
    Refused(&'static str),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let Some(status) = error.status() else { return Fault::Passing("no reply") };
        let name = status.code.name();
        match status.code {
            Code::NotFound => Fault::Absent,
            Code::PermissionDenied | Code::Unauthenticated => Fault::Denied(name),
            Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::Unimplemented => Fault::Refused(name),
            _ => Fault::Passing(name),
        }
    }
}

impl From<Fault> for RecordsError {
    /// For a call that touches Tasuki's own tables alone.
    fn from(fault: Fault) -> RecordsError {
        match fault {
            Fault::Passing(code) => RecordsError::Unknown(format!("Spanner: {code}")),
            Fault::Denied(code) => RecordsError::Systemic(format!(
                "Spanner does not allow it ({code}): this account needs the role roles/spanner.databaseUser on the \
                 database, or roles/spanner.fineGrainedAccessUser and its database role (infra/schema)"
            )),
            Fault::Absent => RecordsError::Systemic(
                "Spanner does not find the database, or one of Tasuki's tables in it (NOT_FOUND): apply infra/schema to it"
                    .to_owned(),
            ),
            Fault::Refused(code) => RecordsError::Systemic(format!(
                "Spanner refuses the request ({code}): Tasuki's tables in the database are not those of infra/schema"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use google_cloud_gax::error::rpc::Status;

    fn of(code: Code) -> RecordsError {
        let status = Status::default().set_code(code).set_message("Row [a secret] in table t already exists");
        Fault::from(Error::service(status)).into()
    }

    #[test]
    fn what_may_have_happened_is_unknown_and_what_must_be_mended_is_systemic() {
        for code in [Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Aborted, Code::Unavailable] {
            assert_eq!(of(code), RecordsError::Unknown(format!("Spanner: {}", code.name())));
        }
        for code in [Code::NotFound, Code::PermissionDenied, Code::Unauthenticated, Code::FailedPrecondition] {
            assert!(matches!(of(code), RecordsError::Systemic(_)), "{code:?}");
        }
    }

    #[test]
    fn no_text_of_spanner_is_passed_on() {
        for code in [Code::AlreadyExists, Code::Internal, Code::NotFound, Code::PermissionDenied] {
            assert!(!of(code).to_string().contains("secret"));
        }
    }
}
