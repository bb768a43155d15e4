//! SPDY/3's dictionary (draft 3.1, section 2.6.10.1): the bytes that both zlib streams begin with the knowledge of.

/// Each of these words has its length of 32 bits in front, as in a header block; all are shorter than 256 bytes.
macro_rules! words {
    ($($length:literal $word:literal)*) => { concat!($("\0\0\0", $length, $word,)*) };
}

/// The dictionary; Adler-32 0xe3c6a7c2.
pub(super) const DICTIONARY: &str = concat!(
    words! {
        "\x07" "options" "\x04" "head" "\x04" "post" "\x03" "put" "\x06" "delete" "\x05" "trace"
        "\x06" "accept" "\x0e" "accept-charset" "\x0f" "accept-encoding" "\x0f" "accept-language"
        "\x0d" "accept-ranges" "\x03" "age" "\x05" "allow" "\x0d" "authorization" "\x0d" "cache-control"
        "\x0a" "connection" "\x0c" "content-base" "\x10" "content-encoding" "\x10" "content-language"
        "\x0e" "content-length" "\x10" "content-location" "\x0b" "content-md5" "\x0d" "content-range"
        "\x0c" "content-type" "\x04" "date" "\x04" "etag" "\x06" "expect" "\x07" "expires" "\x04" "from"
        "\x04" "host" "\x08" "if-match" "\x11" "if-modified-since" "\x0d" "if-none-match" "\x08" "if-range"
        "\x13" "if-unmodified-since" "\x0d" "last-modified" "\x08" "location" "\x0c" "max-forwards"
        "\x06" "pragma" "\x12" "proxy-authenticate" "\x13" "proxy-authorization" "\x05" "range"
        "\x07" "referer" "\x0b" "retry-after" "\x06" "server" "\x02" "te" "\x07" "trailer"
        "\x11" "transfer-encoding" "\x07" "upgrade" "\x0a" "user-agent" "\x04" "vary" "\x03" "via"
        "\x07" "warning" "\x10" "www-authenticate" "\x06" "method" "\x03" "get" "\x06" "status"
        "\x06" "200 OK" "\x07" "version" "\x08" "HTTP/1.1" "\x03" "url" "\x06" "public" "\x0a" "set-cookie"
        "\x0a" "keep-alive" "\x06" "origin"
    },
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 No",
    "n-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403",
    " Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Fe",
    "b Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunke",
    "d,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/",
    "javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum is tested where the compressor writes it.
    #[test]
    fn has_the_length_of_the_draft() {
        assert_eq!(DICTIONARY.len(), 1423);
    }
}
