//! What a deployment allows: set by whoever deploys, never by who drops a file.

use std::fmt::{self, Display};
use std::str::FromStr;
use tasuki_relay::source::{TableName, is_dataset, is_project};

/// 1 TiB: what one run may read unless the deployment says otherwise (about 6 dollars on demand).
pub const BYTES_MAX_DEFAULT: u64 = 1 << 40;
/// Streams asked for per piece of a part: BigQuery decides how many it gives.
pub const STREAMS: i32 = 4;

/// How BigQuery is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project whose jobs these are, and who pays for them.
    pub project: String,
    /// What sources may read.
    pub sources: Vec<Allowed>,
    /// Where snapshots are made. Its location is that of every job: sources must be there too.
    pub staging: DatasetName,
    /// Bytes that the job of one run may be billed for.
    pub bytes_max: u64,
}

impl Settings {
    /// With the default cap.
    pub fn new(project: &str, sources: Vec<Allowed>, staging: DatasetName) -> Settings {
        Settings { project: project.to_owned(), sources, staging, bytes_max: BYTES_MAX_DEFAULT }
    }

    /// The table may be read.
    pub fn allows(&self, table: &TableName) -> bool {
        self.sources.iter().any(|allowed| match allowed {
            Allowed::Table(name) => name == table,
            Allowed::Dataset(name) => name.project == table.project && name.dataset == table.dataset,
        })
    }
}

/// `project.dataset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetName {
    /// Its project.
    pub project: String,
    /// Its own name.
    pub dataset: String,
}

/// A text that is neither the name of a dataset nor, where that is allowed, of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not written as {1}")]
pub struct NotAName(String, &'static str);

impl FromStr for DatasetName {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<DatasetName, NotAName> {
        match text.rsplit_once('.') {
            Some((project, dataset)) if is_project(project) && is_dataset(dataset) => {
                Ok(DatasetName { project: project.to_owned(), dataset: dataset.to_owned() })
            }
            _ => Err(NotAName(text.to_owned(), "project.dataset")),
        }
    }
}

impl Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.project, self.dataset)
    }
}

/// What sources may read: every table of a dataset, or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `project.dataset`.
    Dataset(DatasetName),
    /// `project.dataset.table`.
    Table(TableName),
}

impl FromStr for Allowed {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Allowed, NotAName> {
        text.parse()
            .map(Allowed::Dataset)
            .or_else(|_| text.parse().map(Allowed::Table))
            .map_err(|_| NotAName(text.to_owned(), "project.dataset or project.dataset.table"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_allows_its_tables_and_a_table_itself_alone() {
        let sources = ["p.open", "p.mixed.one"].map(|text| text.parse().unwrap()).into();
        let settings = Settings::new("p", sources, "p.staging".parse().unwrap());
        let allows = |name: &str| settings.allows(&name.parse().unwrap());
        assert!(allows("p.open.any") && allows("p.mixed.one"));
        for other in ["p.mixed.two", "q.open.any", "p.opened.any", "p.staging.t", "p.Open.any"] {
            assert!(!allows(other), "{other}");
        }
    }

    #[test]
    fn a_name_of_another_form_is_refused() {
        for text in ["", "p", "p.d.t.x", "p.d`", "P.d", "p..t", "p.d.*"] {
            assert!(text.parse::<Allowed>().is_err(), "{text:?}");
        }
        assert!("p.d.t".parse::<DatasetName>().is_err());
    }
}
