//! The waiting page: one small file without scripts, which says nothing about the app but that it cannot start.

/// The whole page.
pub(crate) const HTML: &str = include_str!("page.html");

/// The same page for an app that cannot start: it says why, and asks again when that is worth it, so that a browser that
/// was left open shows the app once it is mended. `sentence` is one of our own.
pub(crate) fn failing(sentence: &str, again: u64) -> String {
    let sentence = sentence.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    HTML.replace("content=\"1\"", &format!("content=\"{again}\""))
        .replace("<title>Waking up</title>", "<title>Not available</title>")
        .replace("Just waking up", "Not available right now")
        .replace(
            "This page opens by itself in a moment.",
            &format!("{sentence}. This page tries again by itself."),
        )
}

/// What the page may do: show its own style, and be no part of another page. The hash is that of the text
/// between `<style>` and `</style>`; the test below says the right one.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'sha256-xqtuKnCvzjBN6tppwyrP8yGFN8bpz3qFiCvv6Tx7PAE='; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let bits =
                (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
            for at in 0..4 {
                let digit = char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
                text.push(if at > three.len() { '=' } else { digit });
            }
        }
        text
    }

    #[test]
    fn the_policy_names_the_style_of_the_page() {
        let style = HTML.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let rustls::SupportedCipherSuite::Tls13(suite) =
            rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        else {
            panic!("not a suite of TLS 1.3");
        };
        let hash = suite.common.hash_provider.hash(style.as_bytes());
        let source = format!("'sha256-{}'", base64(hash.as_ref()));
        assert!(POLICY.contains(&source), "the policy must name {source}");
    }

    #[test]
    fn the_page_of_an_app_that_cannot_start_says_why_and_asks_again_later() {
        let page = failing("the app cannot start: a <b> & c", 32);
        assert!(page.contains("http-equiv=\"refresh\" content=\"32\"") && !page.contains("content=\"1\""));
        assert!(page.contains("the app cannot start: a &lt;b&gt; &amp; c. This page"), "{page}");
        assert!(page.contains("<title>Not available</title>") && !page.contains("waking up"));
        let style =
            |page: &str| page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0.to_owned();
        assert_eq!(style(&page), style(HTML), "the policy allows this one");
    }

    #[test]
    fn the_page_is_small_and_loads_itself_again_without_a_script() {
        assert!(HTML.len() < 3000);
        assert!(HTML.contains("http-equiv=\"refresh\""));
        assert!(!HTML.contains("<script") && !HTML.contains("://"));
    }
}
