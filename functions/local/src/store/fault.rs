//! What an error of SQLite means to the relay.

use rusqlite::ffi::{self, ErrorCode};
use tasuki_relay::ports::RecordsError;

/// A [`RecordsError`] that `?` makes of an error of SQLite.
#[derive(Debug)]
pub(super) struct Fault(pub RecordsError);

impl From<RecordsError> for Fault {
    fn from(error: RecordsError) -> Fault {
        Fault(error)
    }
}

impl From<rusqlite::Error> for Fault {
    /// What a retry or a person with a free disk can heal is `Unknown`; the rest needs the store mended. SQLite's
    /// messages name tables and columns, never values.
    fn from(error: rusqlite::Error) -> Fault {
        let passing = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DiskFull
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::OperationAborted
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::SchemaChanged
            )
        );
        Fault(match passing {
            true => RecordsError::Unknown(error.to_string()),
            false => RecordsError::Systemic(format!("the SQLite store cannot be used: {error}")),
        })
    }
}

/// The constraint that `error` breaches, as SQLite names it; `None` for any other error.
pub(super) fn breach(error: &rusqlite::Error) -> Option<&'static str> {
    let error = error.sqlite_error().filter(|error| error.code == ErrorCode::ConstraintViolation)?;
    Some(match error.extended_code {
        ffi::SQLITE_CONSTRAINT_CHECK => "CHECK",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "DATATYPE",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "FOREIGN_KEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "NOT_NULL",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "PRIMARY_KEY",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "TRIGGER",
        ffi::SQLITE_CONSTRAINT_UNIQUE => "UNIQUE",
        _ => "CONSTRAINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32) -> RecordsError {
        Fault::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)).0
    }

    #[test]
    fn what_may_pass_is_unknown_and_what_must_be_mended_is_systemic() {
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_SNAPSHOT, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_FULL] {
            assert!(matches!(of(code), RecordsError::Unknown(_)), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_READONLY, ffi::SQLITE_ERROR] {
            assert!(matches!(of(code), RecordsError::Systemic(_)), "{code}");
        }
    }

    #[test]
    fn only_a_constraint_is_the_rows_fault() {
        let code = |code| breach(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert_eq!(code(ffi::SQLITE_CONSTRAINT_CHECK), Some("CHECK"));
        assert_eq!(code(ffi::SQLITE_BUSY), None);
    }
}
