//! Any proxy: substitution serves it without being told anything; on the error path what most proxies agree on is read.

use super::head::{Doubt, Reach, RequestHead, Target};
use super::location::safe_location;
use super::{App, Form, ProxyPlugin, Rendered, Unfit, WakeAddress};

/// Whatever follows EndpointSlices.
#[derive(Debug)]
pub(super) struct Any;

impl ProxyPlugin for Any {
    fn name(&self) -> &'static str {
        "any"
    }

    fn forms(&self) -> &'static [Form] {
        &[Form {
            name: "substitution",
            about: "whatever follows EndpointSlices, with no configuration",
            route: Some("HTTPRoute"),
        }]
    }

    fn render(&self, app: &App, _: &WakeAddress) -> Result<Rendered, Unfit> {
        app.form(self.forms(), "substitution")?;
        app.service()?;
        Ok(Rendered::substitution(&[
            "Nothing to apply: while the app sleeps, KubeNap's own EndpointSlices lead to it, and any proxy that follows them comes along.",
            "Proxies that dial pods without EndpointSlices, such as load balancers that register pods as targets, are not served.",
        ]))
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        if head.path() == "/wake" {
            return Err(Doubt::Where);
        }
        let told = ["x-original-uri", "x-forwarded-uri"].into_iter().find_map(|name| {
            let told = head.one(name).ok().flatten()?;
            safe_location(told)
        });
        // `X-Forwarded-Host` may name the app where `Host` is KubeNap's own.
        let forwarded = head.fields.iter().filter(|(name, _)| *name == "x-forwarded-host");
        let forwarded = forwarded.flat_map(|(_, value)| value.split(',')).map(str::trim);
        let forwarded: Vec<_> = forwarded.filter(|name| !name.is_empty()).collect();
        let mut target = head.about(told.unwrap_or(head.uri), Reach::Gone)?;
        target.hosts.extend(forwarded);
        Ok(target)
    }
}
