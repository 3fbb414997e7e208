//! `sunctl top`: the best-rated files of a region.

use geo::RegionId;
use geo::answer::{Answer, Table, bytes};
use popularity_api::Client;
use popularity_api::wire::Top;
use serde_json::json;

/// Asks the API.
///
/// # Errors
///
/// When the API does not answer or refuses.
pub async fn top(client: &Client, region: RegionId, limit: usize) -> anyhow::Result<Answer> {
    Ok(answer(&client.top(region, limit).await?))
}

fn answer(top: &Top) -> Answer {
    if top.files.is_empty() {
        let text = format!("nothing was downloaded in region {} lately\n", top.region);
        return Answer::good(text, json!(top));
    }
    let mut table = Table::new(&["", "SIZE", "RATING (1 H)", "RATING (48 H)", "FILE"]);
    for (place, file) in (1..).zip(&top.files) {
        table.row([
            place.to_string(),
            bytes(file.size),
            format!("{:.1}", file.rating_hour),
            format!("{:.1}", file.rating_days),
            // Last: one long name pads no other row.
            file.file.clone(),
        ]);
    }
    Answer::good(table.text(), json!(top))
}

#[cfg(test)]
mod tests {
    use popularity_api::wire::Rated;

    use super::*;

    #[test]
    fn the_best_comes_first_with_its_ratings() {
        let rated = |file: &str, rating: f64| Rated {
            file: file.to_owned(),
            size: 192_300,
            score: 1.0,
            rating_hour: rating,
            rating_days: rating * 10.0,
        };
        let top = Top { region: RegionId(4), files: vec![rated("c1/a.jpg", 12.25), rated("c1/long/b.jpg", 3.0)] };
        assert_eq!(
            answer(&top).text,
            "     SIZE  RATING (1 H)  RATING (48 H)  FILE\n\
             1  192 KB          12.2          122.5  c1/a.jpg\n\
             2  192 KB           3.0           30.0  c1/long/b.jpg\n"
        );
    }

    #[test]
    fn a_quiet_region_is_told_as_such() {
        let top = Top { region: RegionId(5), files: Vec::new() };
        assert_eq!(answer(&top).text, "nothing was downloaded in region 5 lately\n");
    }
}
