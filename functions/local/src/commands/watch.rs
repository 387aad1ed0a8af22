//! Which dropped files are whole.

/// Ends of names that programs give to files that they still write, or keep beside a file.
const UNFINISHED: [&str; 6] = ["~", ".tmp", ".part", ".partial", ".crdownload", ".swp"];

/// Whether a file of this name is meant to be read.
pub(crate) fn is_data(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    !file.starts_with('.') && !UNFINISHED.iter().any(|end| lower.ends_with(end))
}
