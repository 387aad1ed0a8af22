//! Tasuki's own tables in Spanner: the files of `infra/schema`, in their order.

/// The files, by name.
const FILES: [(&str, &str); 2] = [
    ("0001_books.sql", include_str!("../../../../infra/schema/0001_books.sql")),
    ("0002_loader.sql", include_str!("../../../../infra/schema/0002_loader.sql")),
];

/// The statements that make the tables, in the order in which they are applied.
pub fn statements() -> Vec<String> {
    FILES.iter().flat_map(|(_, text)| tasuki_relay::ddl::statements(text)).collect()
}
