//! `sunctl hot`: the files of a region that several suns share now, how much they are asked for, and who shares them.

use geo::RegionId;
use geo::answer::{Answer, Table};
use popularity_api::Client;
use popularity_api::wire::Hot;
use serde_json::json;

/// Asks the API.
///
/// # Errors
///
/// When the API does not answer or refuses.
pub async fn hot(client: &Client, region: RegionId, limit: usize) -> anyhow::Result<Answer> {
    Ok(answer(&client.hot(region, limit).await?))
}

fn answer(hot: &Hot) -> Answer {
    if hot.files.is_empty() {
        let text = format!("no file of region {} is hot: one sun each is enough\n", hot.region);
        return Answer::good(text, json!(hot));
    }
    let mut table = Table::new(&["FILE", "REQUESTS/S", "MBIT/S", "R", "SUNS"]);
    for file in &hot.files {
        table.row([
            file.file.clone(),
            format!("{:.1}", file.requests_per_second),
            format!("{:.1}", file.bits_per_second / 1e6),
            file.spread.to_string(),
            file.suns.join(" "),
        ]);
    }
    Answer::good(table.text(), json!(hot))
}

#[cfg(test)]
mod tests {
    use popularity_api::wire::HotNow;

    use super::*;

    #[test]
    fn a_hot_file_is_told_with_the_suns_that_share_it() {
        let file = |file: &str, rate: f64, suns: &[&str]| HotNow {
            file: file.to_owned(),
            requests_per_second: rate,
            bits_per_second: rate * 1e6,
            spread: suns.len(),
            suns: suns.iter().map(|&sun| sun.to_owned()).collect(),
        };
        let files = vec![
            file("c1/a.jpg", 120.25, &["sun4-1-2", "sun4-1-1", "sun4-1-3"]),
            file("c1/long/b.jpg", 60.0, &["sun4-1-1", "sun4-1-3"]),
        ];
        assert_eq!(
            answer(&Hot { region: RegionId(4), files }).text,
            "FILE           REQUESTS/S  MBIT/S  R  SUNS\n\
             c1/a.jpg            120.2   120.2  3  sun4-1-2 sun4-1-1 sun4-1-3\n\
             c1/long/b.jpg        60.0    60.0  2  sun4-1-1 sun4-1-3\n"
        );
    }

    #[test]
    fn a_region_without_is_told_as_such() {
        let hot = Hot { region: RegionId(5), files: Vec::new() };
        assert_eq!(answer(&hot).text, "no file of region 5 is hot: one sun each is enough\n");
    }
}
