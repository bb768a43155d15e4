//! The database's tables and the version of what stands in them.

use redb::TableDefinition;

/// Changes when an older frontend could no longer read the records.
pub const VERSION: u64 = 1;
/// Key of [`META`] that holds [`VERSION`].
pub const VERSION_KEY: &str = "version";

/// Figures about the database itself.
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// A table of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Pod sandboxes.
    Sandboxes,
    /// Containers.
    Containers,
}

impl Table {
    /// How the database calls it.
    pub const fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Self::Sandboxes => TableDefinition::new("sandboxes"),
            Self::Containers => TableDefinition::new("containers"),
        }
    }
}
