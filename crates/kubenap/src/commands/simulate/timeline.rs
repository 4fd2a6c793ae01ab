//! A timeline per app as SVG: when it would have slept, when it was used, and of which time nothing is known.

use jiff::Timestamp;
use kubenap_core::simulate::Span;

use super::{Part, Row};

const LEFT: f64 = 240.0;
const WIDTH: f64 = 1200.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 48.0;
const HEIGHT: f64 = 22.0;
/// At most so many spans of a kind are drawn for an app: more are no picture.
const MOST: usize = 4_000;

// Colours that also the colour-blind tell apart (Okabe and Ito).
const AWAKE: &str = "#e8e8e8";
const ASLEEP: &str = "#0072b2";
const USED: &str = "#d55e00";
const UNKNOWN: &str = "#999999";

/// The whole picture.
pub(super) fn svg(apps: &[Row], whole: Span) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a number of lines")]
    let height = TOP + HEIGHT * apps.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (at, colour, name) in [
        (0.0, ASLEEP, "asleep"),
        (90.0, USED, "used"),
        (170.0, UNKNOWN, "not known"),
        (280.0, AWAKE, "awake"),
    ] {
        let x = LEFT + at;
        svg += &format!(
            "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"20\">{name}</text>\n",
            x + 18.0
        );
    }
    let end = LEFT + span();
    for (number, app) in apps.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a number of lines")]
        let y = TOP + HEIGHT * number as f64;
        svg += &format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}/{}</text>\n<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{AWAKE}\"/>\n",
            LEFT - 8.0,
            y + 15.0,
            escape(&app.namespace),
            escape(&app.name),
            y + 4.0,
            span()
        );
        bars(&mut svg, &app.asleep, whole, y, ASLEEP);
        bars(&mut svg, &app.unknown, whole, y, UNKNOWN);
        bars(&mut svg, &app.used, whole, y, USED);
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.0} % asleep, {} wakes</text>\n",
            end + 8.0,
            y + 15.0,
            app.asleep_share * 100.0,
            app.wakes
        );
    }
    let y = height - 16.0;
    svg += &format!("<text x=\"{LEFT}\" y=\"{y:.1}\">{}</text>\n", whole.from);
    svg += &format!("<text x=\"{end:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>\n</svg>\n", whole.to);
    svg
}

fn span() -> f64 {
    WIDTH - LEFT - RIGHT
}

fn bars(svg: &mut String, parts: &[Part], whole: Span, y: f64, colour: &str) {
    let length = whole.length().as_secs_f64().max(1.0);
    let x = |moment: &str| {
        let moment: Timestamp = moment.parse().unwrap_or(whole.from);
        let passed = moment.duration_since(whole.from).as_secs_f64();
        LEFT + (passed / length).clamp(0.0, 1.0) * span()
    };
    for part in parts.iter().take(MOST) {
        let (from, to) = (x(&part.from), x(&part.to));
        svg.push_str(&format!(
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n",
            y + 4.0,
            // A moment has to be seen, too.
            (to - from).max(0.5)
        ));
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn part(from: i64, to: i64) -> Part {
        let moment = |second| Timestamp::from_second(second).unwrap().to_string();
        Part { from: moment(from), to: moment(to) }
    }

    #[test]
    fn each_app_has_a_line_with_what_was_when() {
        let app = Row {
            namespace: "shop".to_owned(),
            name: "<web>".to_owned(),
            opted_in: true,
            replicas: 2,
            idle_after: "10m".to_owned(),
            asleep_seconds: 500,
            asleep_share: 0.5,
            wakes: 1,
            saved_replica_hours: 0.3,
            unknown_seconds: 100,
            series: 1,
            looked_for: Vec::new(),
            unasked_query: None,
            asleep: vec![part(100, 600)],
            used: vec![part(600, 600)],
            unknown: vec![part(-50, 100)],
        };
        let whole = Span::new(Timestamp::from_second(0).unwrap(), Timestamp::from_second(1000).unwrap());
        expect![[r##"
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 110" font-family="sans-serif" font-size="12">
            <rect width="1200" height="110" fill="#fff"/>
            <rect x="240" y="10" width="12" height="12" fill="#0072b2"/><text x="258" y="20">asleep</text>
            <rect x="330" y="10" width="12" height="12" fill="#d55e00"/><text x="348" y="20">used</text>
            <rect x="410" y="10" width="12" height="12" fill="#999999"/><text x="428" y="20">not known</text>
            <rect x="520" y="10" width="12" height="12" fill="#e8e8e8"/><text x="538" y="20">awake</text>
            <text x="232" y="63.0" text-anchor="end">shop/&lt;web&gt;</text>
            <rect x="240" y="52.0" width="810.0" height="14" fill="#e8e8e8"/>
            <rect x="321.0" y="52.0" width="405.0" height="14" fill="#0072b2"/>
            <rect x="240.0" y="52.0" width="81.0" height="14" fill="#999999"/>
            <rect x="726.0" y="52.0" width="0.5" height="14" fill="#d55e00"/>
            <text x="1058.0" y="63.0">50 % asleep, 1 wakes</text>
            <text x="240" y="94.0">1970-01-01T00:00:00Z</text>
            <text x="1050.0" y="94.0" text-anchor="end">1970-01-01T00:16:40Z</text>
            </svg>
        "##]].assert_eq(&svg(&[app], whole));
    }
}
