//! `sunctl where`: who serves a file to a client, and why.
//!
//! Asked of the API it is what a page would get now. Worked out from a topology file it is what anyone
//! gets while the API is away: the owner sun, whatever the caches hold.

use std::fmt::Write;
use std::net::IpAddr;

use anyhow::{Context, bail};
use geo::answer::Answer;
use geo::resolver::{Resolver, Sources};
use geo::{CanonicalName, Scheme, Topology};
use popularity_api::Client;
use popularity_api::wire::{Explanation, Link, LinksRequest};
use serde_json::json;

/// A question: which file, for whom, over what.
#[derive(Clone, Debug)]
pub struct Question {
    /// As a link or a name has it: `c100500/a.jpg`, `/c100500/a.jpg`.
    pub file: CanonicalName,
    /// Who will follow the link.
    pub client: IpAddr,
    /// Scheme of the link.
    pub scheme: Scheme,
}

/// Asks the API.
///
/// # Errors
///
/// When the API does not answer, refuses, or does not know the file's content server.
pub async fn ask(client: &Client, question: &Question) -> anyhow::Result<Answer> {
    let request = LinksRequest {
        client: question.client,
        files: vec![question.file.to_string()],
        scheme: question.scheme,
        explain: true,
    };
    let mut links = client.links(&request).await?;
    let link = links.links.pop().context("the API answered without a link; is it of another version?")?;
    if let Some(error) = &link.error {
        bail!("{}: {error}", question.file);
    }
    Ok(answer(question, &link))
}

/// Works it out from a topology and the evidence for regions.
///
/// # Errors
///
/// When the evidence cannot be read or the file's content server is none of the topology's.
pub fn work_out(topology: &Topology, sources: &Sources, question: &Question) -> anyhow::Result<Answer> {
    if topology.content_servers.url_of(&question.file).is_none() {
        bail!("content server {} is not in the topology's content_servers.numbers", question.file.content_server());
    }
    let resolver = Resolver::load(sources, topology)?;
    let resolution = resolver.resolve(question.client);
    let content = question.file.content_id();
    // The first of the client's regions where somebody has weight.
    let orders = resolution
        .regions
        .iter()
        .filter_map(|&id| topology.region(id))
        .map(|region| (region, region.sun_order(content)));
    let Some((region, order)) = { orders }.find(|(_, order)| !order.is_empty()) else {
        bail!("no sun of the client's regions has weight");
    };
    let unsigned = match topology.class_of(&question.file).signed {
        Some(_) => "; the link is to be signed (sunctl sign)",
        None => "",
    };
    let linked = order.iter().find_map(|sun| Some((sun, sun.server.link(question.scheme, &question.file)?)));
    let link = Link {
        file: question.file.to_string(),
        url: linked.as_ref().map(|(_, url)| url.clone()),
        server: linked.as_ref().map(|(sun, _)| sun.server.name.clone()),
        error: None,
        explain: Some(Explanation {
            evidence: resolution.evidence.to_string(),
            region: region.id,
            suns: order.iter().map(|sun| sun.server.name.clone()).collect(),
            holders: Vec::new(),
            spread: 1,
            reason: format!("by the topology alone: what caches hold and who is alive is not known{unsigned}"),
            signed: None,
        }),
    };
    Ok(answer(question, &link))
}

fn answer(question: &Question, link: &Link) -> Answer {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<11} {value}");
    };
    line("file", question.file.as_str());
    line("content id", &question.file.content_id().to_string());
    line("client", &question.client.to_string());
    if let Some(explain) = &link.explain {
        line("region", &format!("{} ({})", explain.region, explain.evidence));
        let (owner, stand_ins) = explain.suns.split_first().map_or(("nobody", &[][..]), |(first, rest)| (first, rest));
        line("owner", owner);
        line("stand-ins", &list(stand_ins));
        line("holders", &list(&explain.holders));
        if explain.spread > 1 {
            line("hot", &format!("shared by the first {} suns", explain.spread));
        }
        line("served by", &format!("{} ({})", link.server.as_deref().unwrap_or("nobody"), explain.reason));
    }
    line("link", link.url.as_deref().unwrap_or("none: no server of the region has a port for the scheme"));
    let json = json!({
        "client": question.client,
        "content_id": question.file.content_id().to_string(),
        "link": link,
    });
    Answer { text, json, good: link.url.is_some() }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use geo::RegionId;

    use super::*;

    #[test]
    fn an_answer_tells_who_and_why() {
        let question = question("c100500/a.jpg");
        let link = Link {
            file: "c100500/a.jpg".to_owned(),
            url: Some("https://cache4-1.example.org/c100500/a.jpg".to_owned()),
            server: Some("cache4-1".to_owned()),
            error: None,
            explain: Some(Explanation {
                evidence: "prefix 127.4.0.0/16".to_owned(),
                region: RegionId(4),
                suns: vec!["sun4-2-1".to_owned(), "sun4-2-3".to_owned()],
                holders: vec!["cache4-1".to_owned()],
                spread: 1,
                reason: "held by a cache".to_owned(),
                signed: None,
            }),
        };
        let answer = answer(&question, &link);
        assert!(answer.good);
        let id = question.file.content_id();
        assert_eq!(
            answer.text,
            format!(
                "file        c100500/a.jpg\n\
                 content id  {id}\n\
                 client      127.4.0.1\n\
                 region      4 (prefix 127.4.0.0/16)\n\
                 owner       sun4-2-1\n\
                 stand-ins   sun4-2-3\n\
                 holders     cache4-1\n\
                 served by   cache4-1 (held by a cache)\n\
                 link        https://cache4-1.example.org/c100500/a.jpg\n"
            )
        );
    }

    #[test]
    fn without_a_link_the_answer_is_that_something_is_wrong() {
        let link = Link { file: "c1/a.jpg".to_owned(), url: None, server: None, error: None, explain: None };
        let answer = answer(&question("c1/a.jpg"), &link);
        assert!(!answer.good);
        assert!(answer.text.contains("link        none"), "{}", answer.text);
    }

    fn question(file: &str) -> Question {
        Question {
            file: CanonicalName::parse(file).unwrap(),
            client: IpAddr::from([127, 4, 0, 1]),
            scheme: Scheme::Https,
        }
    }
}
