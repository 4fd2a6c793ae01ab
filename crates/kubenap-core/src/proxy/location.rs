//! Where a redirect may lead: only to a path on the same host, which no client can read in two ways.

/// The longest `Location` that is sent, in bytes.
pub const LONGEST: usize = 8 * 1024;

/// Path and query if they may stand in a `Location` as they are: one leading slash, so that the browser
/// cannot be led to another host, and nothing that any client may read in two ways.
pub fn safe_location(target: &str) -> Option<&str> {
    let bytes = target.as_bytes();
    let fits = bytes.first() == Some(&b'/')
        && !matches!(bytes.get(1), Some(b'/'))
        && bytes.len() <= LONGEST
        && bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\' && *byte != b'#');
    fits.then_some(target)
}

/// The `original` parameter of a query, percent-decoded exactly once, if a redirect may lead there.
pub fn original(query: &str) -> Option<String> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("original="));
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let location = decoded(value)?;
    safe_location(&location).is_some().then_some(location)
}

/// A value of a query, percent-decoded exactly once. Spaces and what is not ASCII come out encoded again.
pub(super) fn decoded(value: &str) -> Option<String> {
    if value.len() > 3 * LONGEST {
        return None;
    }
    let decoded = percent_decoded(value)?;
    let mut location = String::with_capacity(decoded.len());
    for byte in decoded {
        if byte == b' ' || !byte.is_ascii() {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |nibble: u8| char::from(HEX[usize::from(nibble & 0xf)]);
            location.extend(['%', digit(byte >> 4), digit(byte)]);
        } else {
            location.push(char::from(byte));
        }
    }
    Some(location)
}

/// What `%XX` stands for, decoded exactly once.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|hex| char::from(hex).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}
