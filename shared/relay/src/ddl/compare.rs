use super::Table;
use std::fmt;

/// One way in which a table that is there is not the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It has another primary key.
    Key {
        /// The key that is there.
        there: Vec<String>,
        /// The key that is wanted.
        wanted: Vec<String>,
    },
    /// A column has another type.
    Kind {
        /// The column.
        column: String,
        /// The type that is there.
        there: String,
        /// The type that is wanted.
        wanted: String,
    },
    /// A wanted column is not there.
    Missing {
        /// The column.
        column: String,
    },
    /// A column is there that nobody wants.
    Unwanted {
        /// The column.
        column: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Key { there, wanted } => {
                write!(f, "its key is ({}), the pipeline wants ({})", there.join(", "), wanted.join(", "))
            }
            Difference::Kind { column, there, wanted } => {
                write!(f, "its column {column} is {there}, the pipeline wants {wanted}")
            }
            Difference::Missing { column } => write!(f, "it has no column {column}"),
            Difference::Unwanted { column } => write!(f, "it has a column {column} that no pipeline writes"),
        }
    }
}

/// All that differs between the table that is there and the one that is wanted, in the order of their columns.
pub fn differences(there: &Table, wanted: &Table) -> Vec<Difference> {
    let mut found = Vec::new();
    let same =
        |a: &[String], b: &[String]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b));
    if !same(&there.key, &wanted.key) {
        found.push(Difference::Key { there: there.key.clone(), wanted: wanted.key.clone() });
    }
    for column in &wanted.columns {
        match there.column(&column.name) {
            None => found.push(Difference::Missing { column: column.name.clone() }),
            Some(other) if !other.kind.eq_ignore_ascii_case(&column.kind) => found.push(Difference::Kind {
                column: column.name.clone(),
                there: other.kind.clone(),
                wanted: column.kind.clone(),
            }),
            Some(_) => (),
        }
    }
    let unwanted = there.columns.iter().filter(|column| wanted.column(&column.name).is_none());
    found.extend(unwanted.map(|column| Difference::Unwanted { column: column.name.clone() }));
    found
}
