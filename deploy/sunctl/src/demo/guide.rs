//! What the demo prints before it shows itself at work: where everything listens, and a command for each
//! thing worth trying.

use std::fmt::Write;
use std::path::Path;

use super::fleet::Files;
use super::folder::Folder;
use super::media::{Library, MediaFile, MediaKind};
use super::plan::{DOMAIN, NODES, Ports};

/// The text, with its line ends. `program` is how a shell calls this program.
#[must_use]
pub fn text(ports: Ports, folder: &Folder, files: &Files, library: &Library, program: &str) -> String {
    let mut text = String::new();
    listeners(&mut text, ports);
    let (picture, large) = samples(library);
    let sun = &NODES[0];
    let host = format!("{}.{DOMAIN}", sun.name);
    let http = |file: &MediaFile| format!("http://{host}:{}/{}", ports.http(sun), file.name);
    let https = |file: &MediaFile| format!("https://{host}:{}/{}", ports.https(sun), file.name);
    let at = |port: u16| format!("--resolve {host}:{port}:127.0.0.1");
    let (ca, backend, operator) =
        (shell_word(&files.ca), shell_word(&files.backend_token), shell_word(&files.operator_token));
    let (api, topology) = (ports.api(), shell_word(&files.topology));
    let resolve_http = at(ports.http(sun));
    let resolve_https = at(ports.https(sun));
    let mut section = |title: &str, command: String| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n# {title}\n{command}\n");
    };
    section(
        "a file over https: a miss, and a hit the second time",
        format!("curl -sS -o /dev/null -D - --cacert {ca} {resolve_https} {}", https(picture)),
    );
    section("over http", format!("curl -sS -o /dev/null -D - {resolve_http} {}", http(picture)));
    section(
        "a part of a large file",
        format!("curl -sS -o /dev/null -D - -r 1000000-1999999 {resolve_http} {}", http(large)),
    );
    section(
        "links, as a site's back end asks for them",
        format!(
            "curl -sS -H \"Authorization: Bearer $(cat {backend})\" -H 'Content-Type: application/json' \
             -d '{{\"client\": \"127.5.0.1\", \"files\": [\"{}\"], \"explain\": true}}' http://{api}/v1/links",
            picture.name
        ),
    );
    section(
        "the best-rated files of a region",
        format!("curl -sS -H \"Authorization: Bearer $(cat {operator})\" 'http://{api}/v1/regions/4/top?limit=5'"),
    );
    section("the same for people", format!("{program} top 4 --api http://{api} --token-file {operator}"));
    section(
        "who serves a file to whom, and why",
        format!("{program} where {} --client 127.5.0.1 --api http://{api} --token-file {operator}", picture.name),
    );
    section(
        "whether a server is ready, and what it counts",
        format!("curl -sS http://{0}/readyz http://{0}/metrics", ports.admin(sun)),
    );
    section(
        "change a weight, and see what moves",
        format!("{program} weight set {} 50 --topology {topology}", sun.name),
    );
    let kept = if folder.is_kept() { "kept" } else { "removed at the end" };
    let _ = write!(
        text,
        "\nData folder: {} ({kept})\nGallery:     http://{}/\n",
        shell_word(folder.path()),
        ports.gallery()
    );
    text
}

fn listeners(text: &mut String, ports: Ports) {
    let mut table = geo::answer::Table::new(&["REGION", "SERVER", "WEIGHT", "HTTPS", "HTTP", "INTERNAL", "ADMIN"]);
    for node in &NODES {
        table.row([
            node.region.to_string(),
            format!("{}.{DOMAIN}", node.name),
            node.weight.to_string(),
            ports.https(node).to_string(),
            ports.http(node).to_string(),
            ports.internal(node).port().to_string(),
            ports.admin(node).port().to_string(),
        ]);
    }
    let _ = write!(
        text,
        "The whole system runs in this process, on loopback only.\n\n{}\n\
         content server  http://{}\npopularity API  http://{}  (admin http://{})\n",
        table.text(),
        ports.content(),
        ports.api(),
        ports.api_admin(),
    );
}

/// A picture of usual size, or whatever there is; and the largest file.
fn samples(library: &Library) -> (&MediaFile, &MediaFile) {
    let files = library.files();
    let first = &files[0];
    let picture = files.iter().find(|file| file.kind == MediaKind::Picture).unwrap_or(first);
    let large = files.iter().max_by_key(|file| file.size).unwrap_or(first);
    (picture, large)
}

/// A path as a shell takes it.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_a_shell_takes_them() {
        assert_eq!(shell_word(Path::new("/tmp/sun-demo-aB3/ca.pem")), "/tmp/sun-demo-aB3/ca.pem");
        assert_eq!(shell_word(Path::new("/home/me/my demo")), "'/home/me/my demo'");
        assert_eq!(shell_word(Path::new("/it's")), "'/it'\\''s'");
    }
}
