//! PAX records: what an extension header says about the entry after it.

use super::LayerError;

/// A PAX record: key and value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Splits a PAX header into its records: `length key=value\n`, where only the length says where one ends.
pub(super) fn parse(mut data: &[u8]) -> Result<Vec<Record>, LayerError> {
    let bad = || LayerError::entry(b"", "a PAX header is malformed");
    let mut records = Vec::new();
    while !data.is_empty() {
        let digits = data.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length =
            number(&data[..digits]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        let record = data.get(digits + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// The last value of a key; an empty one counts as none, as in Go's reader.
pub(super) fn find<'a>(records: &'a [Record], key: &[u8]) -> Option<&'a [u8]> {
    let (_, value) = records.iter().rfind(|(known, _)| known == key)?;
    (!value.is_empty()).then_some(value)
}

/// A plain decimal number: no sign, no spaces.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_newlines_and_equal_signs() {
        let records = parse(b"16 path=a\nb=c/d\n11 size=123\n");
        assert!(records.is_err(), "a wrong length is found");
        let records = parse(b"16 path=a\nb=c/d\n12 size=123\n").unwrap();
        assert_eq!(find(&records, b"path"), Some(b"a\nb=c/d".as_slice()));
        assert_eq!(find(&records, b"size"), Some(b"123".as_slice()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "x",
            "5 a=b",
            "99 a=b\n",
            "0 a=b\n",
            "3 a=b\n",
            "-6 a=b\n",
            "6 ab c\n",
            "18446744073709551615 a=b\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
