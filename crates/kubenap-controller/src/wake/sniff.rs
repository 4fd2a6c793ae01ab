//! What the first bytes of a connection speak.

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Too few bytes to tell.
    Unclear,
    /// An HTTP/1 request, at least its first line.
    Http1,
    /// The HTTP/2 preface, whole.
    Http2,
    /// A TLS handshake.
    Tls,
    /// Some other protocol.
    Other,
    /// Something that wants to be HTTP/1 but is not.
    Malformed,
}

/// How an HTTP/2 client begins when it knows that the server speaks HTTP/2.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method, and the longest first line, before a connection counts as something else.
const LONGEST_METHOD: usize = 24;

/// Methods whose word alone makes a line HTTP, however it ends; other protocols do not begin like this.
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE"];

/// Tells what `bytes`, the first of a connection, speak. Never looks beyond the first line.
pub(crate) fn speech(bytes: &[u8]) -> Speech {
    let text = bytes.trim_ascii_start();
    if text.len() != bytes.len() {
        // White space before a request line is read in two ways; before anything else it is not ours to judge.
        return match speech(text) {
            Speech::Http1 | Speech::Http2 | Speech::Malformed => Speech::Malformed,
            Speech::Unclear if bytes.len() < LONGEST_METHOD => Speech::Unclear,
            Speech::Unclear | Speech::Tls | Speech::Other => Speech::Other,
        };
    }
    match bytes {
        [] | [0x16] => return Speech::Unclear,
        [0x16, 0x03, ..] => return Speech::Tls,
        _ => {}
    }
    if bytes.starts_with(PREFACE) {
        return Speech::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Speech::Unclear;
    }
    let is_word = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let word = bytes.iter().take_while(|byte| is_word(byte)).count();
    if word == bytes.len() {
        return if word <= LONGEST_METHOD { Speech::Unclear } else { Speech::Other };
    }
    if word == 0 || word > LONGEST_METHOD || bytes.get(word) != Some(&b' ') {
        return Speech::Other;
    }
    let known = bytes.get(..word).is_some_and(|method| METHODS.contains(&method));
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // Text goes on; what is no text is no request line.
        let text = bytes.iter().all(|byte| (0x20..0x7f).contains(byte) || *byte == b'\r' || *byte >= 0x80);
        return if text || known { Speech::Unclear } else { Speech::Other };
    };
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    match line.iter().rposition(|byte| *byte == b' ').and_then(|space| line.get(space + 1..)) {
        Some(b"HTTP/1.1" | b"HTTP/1.0") => Speech::Http1,
        Some(version) if known || version.starts_with(b"HTTP/") => Speech::Malformed,
        _ if known => Speech::Malformed,
        _ => Speech::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        for (bytes, expected) in [
            (&b""[..], Speech::Unclear),
            (b"G", Speech::Unclear),
            (b"GET / HT", Speech::Unclear),
            (b"GET / HTTP/1.1\r\n", Speech::Http1),
            (b"PROPFIND /a HTTP/1.0\r\nx", Speech::Http1),
            (b"get / HTTP/1.1\r\n", Speech::Http1),
            (b"GET /\r\n", Speech::Malformed),
            (b"GET / HTTP/9.9\r\n", Speech::Malformed),
            (b"\r\nGET / HTTP/1.1\r\n", Speech::Malformed),
            (b" GET / HTTP/1.1\r\n", Speech::Malformed),
            (b"PRI", Speech::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Speech::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Speech::Malformed),
            (b"PRINT x", Speech::Unclear),
            (b"\x16", Speech::Unclear),
            (b"\x16\x03\x01\x02\x00", Speech::Tls),
            (b"\x16\x16", Speech::Other),
            (b"PING\r\n", Speech::Other),
            (b"SET key value\r\n", Speech::Other),
            (b"*1\r\n$4\r\nPING\r\n", Speech::Other),
            (b"\x00\x00\x00\x08", Speech::Other),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", Speech::Other),
        ] {
            assert_eq!(speech(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_was_clear(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0usize..60) {
            let early = speech(&bytes[..cut.min(bytes.len())]);
            if early != Speech::Unclear && !bytes.first().is_some_and(u8::is_ascii_whitespace) {
                prop_assert_eq!(speech(&bytes), early);
            }
        }
    }
}
