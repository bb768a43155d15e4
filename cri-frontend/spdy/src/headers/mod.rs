//! Headers of a stream: the names and values ([`Headers`]), and their compressed form on the wire.

mod block;
mod compression;
mod dictionary;

pub use block::BlockError;
pub use compression::{CompressionError, Compressor, Decompressor};

/// Names and their values, in the order of the wire. Names are lower-case, as SPDY has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(String, Vec<String>)>,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of `name`, which is lower-case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of `name`, which is lower-case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.into_iter().flat_map(|(_, values)| values).map(String::as_str)
    }

    /// Each name with its values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.fields.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Adds a value, making its name lower-case. A NUL in the value parts it into two at the peer: it is the wire's
    /// separator of values.
    pub fn append(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        match self.fields.iter_mut().find(|(field, _)| *field == name) {
            Some((_, values)) => values.push(value.to_owned()),
            None => self.fields.push((name, vec![value.to_owned()])),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
        let mut headers = Self::new();
        fields.into_iter().for_each(|(name, value)| headers.append(name, value));
        headers
    }
}
