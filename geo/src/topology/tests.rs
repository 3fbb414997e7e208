//! Documents that are accepted, and what they then say.

mod refusals;

use super::*;

/// A document with one of everything; refused ones are made by replacing a line of it.
const GOOD: &str = r#"
version = 7
domain = "example.org"
default_region = 4

[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["100500", "1-199"]

[[region]]
id = 5
name = "Saint Petersburg"
latitude = 59.94
longitude = 30.3

[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6
neighbours = [5]

[[group]]
name = "sun4-2"
subnet = "192.0.2.0/26"

[[group]]
name = "sun4-1"
subnet = "192.0.2.64/26"

[[sun]]
name = "sun4-2-2"
addresses = ["192.0.2.2", "2001:db8::2"]
http_port = 80
internal = "10.4.2.2:8081"
weight = 50

[[sun]]
name = "sun4-2-1"
addresses = ["192.0.2.1"]
https_port = 8443
http_port = 8080
internal = "10.4.2.1:8081"
weight = 100
nic_gbps = 40

[[cache]]
name = "cache4-1"
addresses = ["192.0.2.70"]
internal = "[2001:db8::4:1]:8081"
weight = 100
bytes = 2_000_000_000_000

[[class]]
name = "video"
paths = ["*.mp4", "c*/video/*"]
kind = "heavy"
spread = "all"
ttl_s = 60
file_bytes_max = 1000
cors = { origins = ["https://example.org", "http://127.0.0.1:8000"], expose_headers = ["Age"] }

[[class]]
name = "pictures"
paths = ["*.jpg"]

[[site]]
host = "WWW.example.net"
content_server = 5

[[site]]
host = "cdn.example.org"
content_server = 7

[[site.class]]
name = "static"
paths = ["/static/*", "*.css"]
policy = "immutable"
ttl_s = 3600
negative_ttl = { "503" = 1, "404" = 60 }
stale_if_error_s = 5
stale_while_revalidate_s = 6
ignore_query = true

[[site.class]]
name = "upload"
paths = ["/upload"]
uploads = { bytes_max = 1000 }
"#;

#[test]
fn a_whole_document_is_read() {
    let topology = good();
    assert_eq!((topology.version, topology.domain.as_str()), (7, "example.org"));
    assert_eq!(topology.default_region, RegionId(4));
    assert_eq!(topology.content_servers.numbers, [(1, 199), (100_500, 100_500)]);
    assert_eq!(topology.regions.iter().map(|region| region.id.0).collect::<Vec<_>>(), [4, 5]);
    let moscow = topology.region(RegionId(4)).unwrap();
    assert_eq!((moscow.name.as_str(), moscow.latitude, moscow.longitude), ("Moscow", 55.75, 37.6));
    assert_eq!(moscow.neighbours, [RegionId(5)]);
    assert_eq!(moscow.groups.iter().map(|group| group.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(moscow.groups[1].subnet.to_string(), "192.0.2.0/26");
    assert_eq!(moscow.suns.iter().map(|sun| sun.server.name.as_str()).collect::<Vec<_>>(), ["sun4-2-1", "sun4-2-2"]);
    let Sun { server, group } = topology.sun("sun4-2-1").unwrap();
    assert_eq!((server.host.as_str(), server.region, *group), ("sun4-2-1.example.org", RegionId(4), 2));
    assert_eq!(server.internal.to_string(), "10.4.2.1:8081");
    assert_eq!((server.weight.get(), server.nic_gbps), (100, 40.0));
    assert_eq!(topology.sun("sun4-2-2").unwrap().server.addresses.len(), 2);
    let cache = topology.cache("cache4-1").unwrap();
    assert_eq!((cache.bytes, cache.server.region), (2_000_000_000_000, RegionId(4)));
    assert_eq!(topology.server("cache4-1").unwrap().name, "cache4-1");
    assert_eq!(topology.server("sun4-2-2").unwrap().name, "sun4-2-2");
    assert!(topology.server("sun4-2-3").is_none());
    assert!(topology.region(RegionId(6)).is_none());
}

#[test]
fn a_draining_server_counts_as_without_weight_and_keeps_what_was_written() {
    let sun = GOOD.find("name = \"sun4-2-1\"").unwrap();
    let (head, tail) = GOOD.split_at(sun);
    let topology =
        Topology::parse(&format!("{head}{}", tail.replacen("weight = 100", "weight = 100\ndraining = true", 1)));
    let topology = topology.unwrap();
    let server = &topology.sun("sun4-2-1").unwrap().server;
    assert_eq!((server.weight.get(), server.weight_wanted.get(), server.draining()), (0, 100, true));
    let moscow = topology.region(RegionId(4)).unwrap();
    for file in 0..100 {
        let content = CanonicalName::parse(&format!("c1/{file}")).unwrap().content_id();
        assert_eq!(moscow.owner(content).unwrap().server.name, "sun4-2-2");
    }
    let before = good();
    let moved = before.region(RegionId(4)).unwrap().suns_moved(moscow);
    assert!(moved > 0.0 && moved < 1.0, "{moved}");
    let server = &before.sun("sun4-2-1").unwrap().server;
    assert_eq!((server.weight.get(), server.weight_wanted.get(), server.draining()), (100, 100, false));
}

#[test]
fn what_a_document_leaves_out_has_its_default() {
    let topology = good();
    let sun = &topology.sun("sun4-2-2").unwrap().server;
    assert_eq!((sun.https_port, sun.http_port, sun.nic_gbps), (443, Some(80), 10.0));
    assert_eq!(topology.cache("cache4-1").unwrap().server.http_port, None);
    assert!(topology.region(RegionId(5)).unwrap().neighbours.is_empty());
    let pictures = &topology.classes[1];
    assert_eq!((pictures.kind, pictures.spread), (Kind::Light, Spread::Auto));
    assert_eq!((pictures.ttl_s, pictures.file_bytes_max), (31_536_000, 17_179_869_184));
    assert!(pictures.cors.is_none() && pictures.uploads.is_none() && !pictures.ignore_query);
    assert_eq!((pictures.policy, pictures.negative_ttl.as_slice()), (Policy::Immutable, &[(404, 10), (410, 10)][..]));
    assert_eq!((pictures.stale_if_error_s, pictures.stale_while_revalidate_s), (604_800, 60));
}

#[test]
fn the_first_class_that_matches_counts() {
    let topology = good();
    let class_of = |name: &str| topology.class_of(&CanonicalName::parse(name).unwrap()).name.clone();
    assert_eq!(class_of("c1/a.mp4"), "video");
    assert_eq!(class_of("c1/video/a.jpg"), "video");
    assert_eq!(class_of("c1/a.jpg"), "pictures");
    assert_eq!(class_of("c1/a.txt"), "default");
    let other = topology.class_of(&CanonicalName::parse("c1/a.txt").unwrap());
    assert_eq!((other.kind, other.spread, other.ttl_s), (Kind::Light, Spread::Auto, 31_536_000));
    let cors = topology.classes[0].cors.as_ref().unwrap();
    assert_eq!(cors.origins, ["https://example.org", "http://127.0.0.1:8000"]);
    assert_eq!(cors.expose_headers, ["Age"]);
}

#[test]
fn a_site_is_found_by_its_host_in_any_case() {
    let topology = good();
    let number = |host: &str| topology.site(host).map(|site| site.content_server);
    assert_eq!((number("cdn.example.org"), number("Cdn.EXAMPLE.org")), (Some(7), Some(7)));
    assert_eq!((number("www.example.net"), topology.sites.len()), (Some(5), 2));
    for other in
        ["", "example.org", "a.cdn.example.org", "cdn.example.org.", "cdn.example.org:80", "sun4-2-1.example.org"]
    {
        assert_eq!(number(other), None, "{other}");
    }
}

#[test]
fn a_content_server_with_sites_is_asked_by_their_name() {
    let topology = good();
    assert_eq!(topology.origin_host(7), Some("cdn.example.org"));
    assert_eq!((topology.origin_host(5), topology.origin_host(6)), (Some("www.example.net"), None));
    let named = GOOD.replace("content_server = 7", "content_server = 7\norigin_host = \"Origin.example.org\"");
    assert_eq!(Topology::parse(&named).unwrap().origin_host(7), Some("origin.example.org"));
}

#[test]
fn a_sites_classes_are_about_paths_of_urls() {
    let topology = good();
    let site = topology.site("cdn.example.org").unwrap();
    let class = site.class_of("/static/a.jpg");
    assert_eq!((class.name.as_str(), class.policy, class.ttl_s), ("static", Policy::Immutable, 3600));
    assert_eq!(class.negative_ttl, [(404, 60), (503, 1)]);
    assert_eq!((class.stale_if_error_s, class.stale_while_revalidate_s, class.ignore_query), (5, 6, true));
    let upload = site.class_of("/upload");
    assert_eq!(upload.uploads, Some(Uploads { bytes_max: 1000, bytes_per_second: 0 }));
    let other = site.class_of("/a.jpg");
    assert_eq!((other.name.as_str(), other.policy, other.ttl_s), ("default", Policy::Rfc, 0));
    assert_eq!((other.stale_if_error_s, other.stale_while_revalidate_s, other.negative_ttl.len()), (0, 0, 0));
    assert_eq!((upload.policy, other.ignore_query, other.file_bytes_max), (Policy::Rfc, false, 17_179_869_184));

    // The class of one file depends on the URL that it was asked for by.
    let name = CanonicalName::for_site(7, "/static/a.jpg", Some("v=1.css")).unwrap();
    assert_eq!(topology.class_for(Some(site), &name).name, "static");
    assert_eq!(topology.class_for(None, &name).name, "pictures");
}

#[test]
fn a_sites_query_goes_upstream_and_its_path_stays_in_its_folder() {
    let url = |template: &str, path: &str| {
        let topology = Topology::parse(&GOOD.replace("http://cs{number}.storage.example.org", template)).unwrap();
        topology.content_servers.url_of(&CanonicalName::for_site(7, path, Some("a=/../b")).unwrap())
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(url("http://cs{number}", "//a/../%2F"), text("http://cs7//a/../%2F?a=/../b"));
    assert_eq!(url("http://h/{number}", "//a/%2F"), text("http://h/7//a/%2F?a=/../b"));
    assert_eq!(url("http://h/{number}", "/a/../../8/b"), None);
    assert_eq!(url("http://h/{number}", "/%2e./8/b"), None);
}

#[test]
fn a_link_names_the_port_only_where_it_is_unusual() {
    let topology = good();
    let name = CanonicalName::parse("c100500/path/%D1%84.jpg").unwrap();
    let link = |server: &str, scheme| topology.server(server).unwrap().link(scheme, &name);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(link("sun4-2-2", Scheme::Https), text("https://sun4-2-2.example.org/c100500/path/%D1%84.jpg"));
    assert_eq!(link("sun4-2-2", Scheme::Http), text("http://sun4-2-2.example.org/c100500/path/%D1%84.jpg"));
    assert_eq!(link("sun4-2-1", Scheme::Https), text("https://sun4-2-1.example.org:8443/c100500/path/%D1%84.jpg"));
    assert_eq!(link("sun4-2-1", Scheme::Http), text("http://sun4-2-1.example.org:8080/c100500/path/%D1%84.jpg"));
    assert_eq!(link("cache4-1", Scheme::Http), None);
}

#[test]
fn a_file_is_fetched_from_content_servers_of_ours_only() {
    check_origin("http://cs{number}.storage.example.org", "c7/a/b.jpg", Some("http://cs7.storage.example.org/a/b.jpg"));
    check_origin("http://127.0.0.1:9100/cs{number}", "c7/a/b.jpg", Some("http://127.0.0.1:9100/cs7/a/b.jpg"));
    check_origin("http://[2001:db8::1]:80/{number}", "c100500/a", Some("http://[2001:db8::1]:80/100500/a"));
    check_origin("http://cs{number}.storage.example.org", "c200/a", None);
    check_origin("http://cs{number}.storage.example.org", "c0/a", None);
}

#[test]
fn owners_follow_weights() {
    let topology = good();
    let moscow = topology.region(RegionId(4)).unwrap();
    let content = CanonicalName::parse("c1/a").unwrap().content_id();
    assert_eq!(moscow.owner(content).unwrap().server.name, moscow.sun_order(content)[0].server.name);
    assert_eq!(moscow.sun_order(content).len(), 2);
    assert_eq!(moscow.cache_order(content)[0].server.name, "cache4-1");
    assert!(topology.region(RegionId(5)).unwrap().owner(content).is_none());

    let drained = Topology::parse(&GOOD.replace("weight = 50", "weight = 0")).unwrap();
    let after = drained.region(RegionId(4)).unwrap();
    assert_eq!(after.sun_order(content).len(), 1);
    assert!((moscow.suns_moved(after) - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(moscow.caches_moved(after), 0.0);
    assert_eq!(moscow.suns_moved(moscow), 0.0);
}

#[track_caller]
fn check_origin(url: &str, name: &str, expected: Option<&str>) {
    let topology = Topology::parse(&GOOD.replace("http://cs{number}.storage.example.org", url)).unwrap();
    let name = CanonicalName::parse(name).unwrap();
    assert_eq!(topology.content_servers.url_of(&name).as_deref(), expected, "{url} {name}");
}

fn good() -> Topology {
    Topology::parse(GOOD).unwrap()
}

#[test]
fn the_shipped_example_is_a_good_document() {
    let topology = Topology::parse(include_str!("../../../deploy/config/topology.toml")).unwrap();
    assert_eq!(topology.regions.len(), 2);
    assert_eq!(topology.regions[0].suns.len(), 2);
    assert_eq!(topology.classes[0].name, "pictures");
    let (pictures, default) = (&topology.classes[0], topology.class_of(&CanonicalName::parse("c1/a.txt").unwrap()));
    assert_eq!((pictures.kind, pictures.spread, pictures.policy), (default.kind, default.spread, default.policy));
    assert_eq!((pictures.ttl_s, pictures.file_bytes_max), (default.ttl_s, default.file_bytes_max));
    assert_eq!(pictures.negative_ttl, default.negative_ttl);
    assert_eq!(pictures.stale_if_error_s, default.stale_if_error_s);
    assert_eq!(pictures.stale_while_revalidate_s, default.stale_while_revalidate_s);
    assert_eq!(topology.sites[0].host, "cdn.example.org");
}
