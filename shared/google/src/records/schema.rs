//! Tasuki's own tables in Spanner: the files of `infra/schema`, in their order. What was applied once is never changed:
//! a later change is a statement of its own, in a new file.

/// The files, by name.
const FILES: [(&str, &str); 4] = [
    ("0001_books.sql", include_str!("../../../../infra/schema/0001_books.sql")),
    ("0002_loader.sql", include_str!("../../../../infra/schema/0002_loader.sql")),
    ("0003_readers.sql", include_str!("../../../../infra/schema/0003_readers.sql")),
    ("0004_bill.sql", include_str!("../../../../infra/schema/0004_bill.sql")),
];

/// The statements that make the tables, in the order in which they are applied.
pub fn statements() -> Vec<String> {
    FILES.iter().flat_map(|(_, text)| tasuki_relay::ddl::statements(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use sha2::{Digest, Sha256};

    /// One line a statement: its SHA-256, then for people where it stands.
    const LISTED: &str = include_str!("../../../../infra/schema/statements.sha256");

    #[test]
    fn what_was_applied_once_is_never_changed() {
        let listed: Vec<&str> = LISTED.lines().filter_map(|line| line.split(' ').next()).collect();
        let statements = statements();
        for (at, listed) in listed.iter().enumerate() {
            let there = statements.get(at).map(|text| HEXLOWER.encode(&Sha256::digest(text)));
            assert_eq!(
                there.as_deref(),
                Some(*listed),
                "statement {} of infra/schema was changed or removed, and databases have it as it was: put it back, and write \
                 the change as a new statement in a new numbered file",
                at + 1
            );
        }
        let unlisted = statements[listed.len()..].iter().map(|text| HEXLOWER.encode(&Sha256::digest(text)));
        let unlisted: Vec<String> = unlisted.collect();
        assert!(unlisted.is_empty(), "append to infra/schema/statements.sha256:\n{}", unlisted.join("\n"));
    }

    #[test]
    fn every_numbered_file_is_read_in_its_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/schema");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".sql")).collect();
        names.sort();
        assert_eq!(FILES.map(|(name, _)| name).to_vec(), names);
    }
}
