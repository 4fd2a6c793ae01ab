//! Plots as SVG: the distribution of several rows of values, each as a line of cumulative parts.

use serde::Serialize;

use super::figures::Values;

/// One plot.
#[derive(Serialize)]
pub(crate) struct Plot {
    /// Its file, without the ending.
    pub(crate) file: String,
    pub(crate) title: String,
    /// What the horizontal axis shows, with its unit.
    pub(crate) axis: String,
    pub(crate) lines: Vec<(String, Values)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 48.0;
/// Colours that also the colour-blind tell apart (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"];

impl Plot {
    /// The whole picture.
    #[expect(clippy::cast_precision_loss, reason = "counts of measurements are small")]
    pub(crate) fn svg(&self) -> String {
        let (low, high) = self.range();
        let x = |value: f64| LEFT + (value.clamp(low, high) - low) / (high - low) * (WIDTH - LEFT - RIGHT);
        let y = |part: f64| TOP + (1.0 - part) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
            escape(&self.title)
        );
        for (part, label) in [(0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")] {
            let (at, end) = (y(part), WIDTH - RIGHT);
            svg += &format!(
                "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for tick in ticks(low, high) {
            let at = x(tick);
            svg += &format!(
                "<path d=\"M{at:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                number(tick)
            );
        }
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 10.0,
            escape(&self.axis)
        );
        for (nth, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[nth % COLOURS.len()];
            let all = thinned(values);
            let mut path = String::new();
            for (value, part) in &all {
                let command =
                    if path.is_empty() { format!("M{:.1} {:.1}", x(*value), y(0.0)) } else { String::new() };
                path += &format!("{command}H{:.1}V{:.1}", x(*value), y(*part));
            }
            let at = TOP + 14.0 * (nth as f64 + 1.0);
            let side = WIDTH - RIGHT + 14.0;
            svg += &format!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\n\
                 <path d=\"M{side} {:.1}h16\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{:.1}\" y=\"{at:.1}\">{}</text>\n",
                at - 4.0,
                side + 22.0,
                escape(name)
            );
        }
        svg + "</svg>\n"
    }

    /// From the least value to one that leaves out only the last hundredth.
    fn range(&self) -> (f64, f64) {
        let low = self.lines.iter().map(|(_, values)| values.at(0.0)).fold(f64::INFINITY, f64::min);
        let high = self.lines.iter().map(|(_, values)| values.at(0.99)).fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low.is_finite() && high.is_finite() { (low.min(0.0), high) } else { (0.0, 1.0) };
        (low, if high > low { high } else { low + 1.0 })
    }
}

/// At most two hundred steps of a line.
#[expect(clippy::cast_precision_loss, reason = "counts of measurements are small")]
fn thinned(values: &Values) -> Vec<(f64, f64)> {
    let (all, count) = (values.all(), values.len());
    let every = count.div_ceil(200).max(1);
    let step = |(nth, value): (usize, &f64)| (*value, (nth + 1) as f64 / count as f64);
    let last = all.last().map(|value| (*value, 1.0));
    all.iter().enumerate().map(step).step_by(every).chain(last).collect()
}

/// About six round numbers.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil();
    (0..12).map(|nth| (first + f64::from(nth)) * step).take_while(|tick| *tick <= high).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Plot, Values, number, ticks};

    #[test]
    fn a_plot_is_a_picture_with_a_line_for_each_row_of_values() {
        let line = |name: &str, times: f64| {
            (name.to_owned(), Values::of((0..1000).map(|n| f64::from(n) * times - 5.0).collect()))
        };
        let plot = Plot {
            file: "x".into(),
            title: "a < b".into(),
            axis: "ms".into(),
            lines: vec![line("one", 0.1), line("two", 0.2)],
        };
        let svg = plot.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains(">one<") && svg.contains(">two<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.len() < 20_000);
        assert_eq!(Plot { lines: Vec::new(), ..plot }.svg().matches("stroke-width").count(), 0);
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(
            ticks(-5.0, 52.0).into_iter().map(number).collect::<Vec<_>>(),
            ["0", "10", "20", "30", "40", "50"]
        );
    }
}
