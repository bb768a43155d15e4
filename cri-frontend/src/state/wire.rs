//! CRI messages inside JSON records: their own encoding in base64, since it keeps what a newer client sent.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// For `#[serde(serialize_with)]`.
pub fn serialize<M: Message, S: Serializer>(message: &Arc<M>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(message.encode_to_vec()))
}

/// For `#[serde(deserialize_with)]`.
pub fn deserialize<'de, M, D>(from: D) -> Result<Arc<M>, D::Error>
where
    M: Message + Default,
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    M::decode(bytes.as_slice()).map(Arc::new).map_err(D::Error::custom)
}
