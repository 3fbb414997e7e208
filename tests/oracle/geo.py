"""Compares `geo lookup` with independent implementations on real files: pytricia for prefixes, maxminddb's reader for geoip.

    geo.py GEO ASN_FOLDER COUNTRY_MMDB WORK_FOLDER

Asks about a million random addresses and about the first and last address of every prefix and range, both sides of each. Prints
what was compared and the first differences; the exit status is 0 only when there is none.
"""

import csv
import json
import pathlib
import random
import socket
import subprocess
import sys

import maxminddb
import pytricia

REGIONS = 20
RANDOM = 1_000_000
SHOWN = 10
AT_ONCE = 1_000_000
BITS = {4: 32, 6: 128}
# (4 or 6, first address, length)
Prefix = tuple[int, int, int]
# What is random here is the same in every run.
chance = random.Random(20)


def main() -> int:
    geo, asn_folder, mmdb, work = sys.argv[1], *map(pathlib.Path, sys.argv[2:5])
    work.mkdir(parents=True, exist_ok=True)
    topology = work / "topology.toml"
    topology.write_text(topology_text())
    listed = read_list(asn_folder)
    differences = compare_prefixes(geo, topology, listed, work)
    differences += compare_geoip(geo, topology, mmdb)
    print(f"{differences} differences")
    return 1 if differences else 0


def topology_text() -> str:
    head = 'version = 1\ndomain = "example.org"\ndefault_region = 1\ncontent_servers = { url = "http://cs{number}", numbers = ["1"] }\n'
    spot = '[[region]]\nid = {0}\nname = "r{0}"\nlatitude = {0}.0\nlongitude = {0}.0\n'
    return head + "".join(spot.format(region) for region in range(1, REGIONS + 1))


def read_list(folder: pathlib.Path) -> dict[Prefix, int]:
    """Real prefixes by origin AS; over and under some of them others, so that the longest match matters."""
    listed = {}
    for family in (4, 6):
        with open(folder / f"asn-ipv{family}.csv", newline="") as file:
            for first, last, asn, *_ in csv.reader(file):
                for start, length in split(number(first), number(last), BITS[family]):
                    listed[family, start, length] = int(asn) % REGIONS + 1
    for family, start, length in list(listed):
        if chance.random() < 0.02 and length > 16:
            length_up = length - chance.randrange(1, 9)
            hidden = BITS[family] - length_up
            listed.setdefault((family, start >> hidden << hidden, length_up), chance.randrange(1, REGIONS + 1))
        if chance.random() < 0.02 and length < BITS[family] - 4:
            listed.setdefault((family, start, length + 4), chance.randrange(1, REGIONS + 1))
    return listed


def split(first: int, last: int, bits: int):
    """The prefixes that a range is made of, as (start, length)."""
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else bits
        free = min(aligned, (last - first + 1).bit_length() - 1)
        yield first, bits - free
        first += 1 << free


def compare_prefixes(geo: str, topology: pathlib.Path, listed: dict[Prefix, int], work: pathlib.Path) -> int:
    file = work / "prefixes.csv"
    file.write_text("".join(f"{written(prefix)},{region}\n" for prefix, region in listed.items()))
    tries = {family: pytricia.PyTricia(bits) for family, bits in BITS.items()}
    for prefix, region in listed.items():
        tries[prefix[0]].insert(written(prefix), region)
    asked = edges((family, start, start + (1 << BITS[family] - length) - 1) for family, start, length in listed)
    for family in (4, 6):
        prefixes = [prefix for prefix in listed if prefix[0] == family]
        asked += [somewhere(family, prefixes) for _ in range(RANDOM // 2)]
    wrong = 0
    for address, told in zip(asked, ask(geo, topology, ["--prefixes", str(file)], asked), strict=True):
        trie = tries[6 if ":" in address else 4]
        prefix = trie.get_key(address)
        wrong += differs(address, (trie[prefix], f"prefix {prefix}") if prefix else (1, "default"), told)
    print(f"prefixes: {len(listed)} listed, {len(asked)} addresses asked about, {wrong} differences from pytricia")
    return wrong


def compare_geoip(geo: str, topology: pathlib.Path, mmdb: pathlib.Path) -> int:
    with maxminddb.open_database(mmdb) as reader:
        bounds, countries = [], set()
        for network, record in reader:
            countries.add(country(record))
            bounds.append((network.version, int(network.network_address), int(network.broadcast_address)))
        regions = {code: order % REGIONS + 1 for order, code in enumerate(sorted(countries - {None}))}
        asked = edges(bounds)
        asked += [address(family, chance.getrandbits(BITS[family])) for family in (4, 6) for _ in range(RANDOM // 2)]
        options = ["--geoip", str(mmdb), *(f"--country={code}={region}" for code, region in regions.items())]
        wrong = 0
        for client, told in zip(asked, ask(geo, topology, options, asked), strict=True):
            code = country(reader.get(client))
            wrong += differs(client, (regions[code], f"geoip {code}") if code else (1, "default"), told)
    print(f"geoip: {len(bounds)} networks, {len(asked)} addresses asked about, {wrong} differences from maxminddb")
    return wrong


def country(record) -> str | None:
    return record.get("country_code") if isinstance(record, dict) else None


def edges(bounds) -> list[str]:
    """First and last address of each range, and their neighbours outside."""
    found = set()
    for family, first, last in bounds:
        for spot in (first - 1, first, last, last + 1):
            if 0 <= spot < 1 << BITS[family]:
                found.add((family, spot))
    return [address(family, spot) for family, spot in sorted(found)]


def somewhere(family: int, prefixes: list[Prefix]) -> str:
    """Half of them anywhere, half inside a prefix: anywhere in IPv6 is nowhere."""
    if chance.random() < 0.5:
        return address(family, chance.getrandbits(BITS[family]))
    _, start, length = chance.choice(prefixes)
    return address(family, start + chance.randrange(1 << BITS[family] - length))


def number(text: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text))


def address(family: int, spot: int) -> str:
    if family == 6 and spot >> 32 == 0xFFFF:
        spot = 1  # an IPv4 address in IPv6's clothes is an IPv4 address to us
    return socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, spot.to_bytes(BITS[family] // 8))


def written(prefix: Prefix) -> str:
    family, start, length = prefix
    return f"{address(family, start)}/{length}"


def ask(geo: str, topology: pathlib.Path, options: list[str], addresses: list[str]) -> list[tuple[int, str]]:
    """The first region of each address and what told it."""
    command, answers = [geo, "lookup", "--topology", str(topology), "--json", *options, "-"], []
    for start in range(0, len(addresses), AT_ONCE):
        lines = "\n".join(addresses[start : start + AT_ONCE])
        done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
        answers += [(answer["regions"][0], answer["evidence"]) for answer in json.loads(done.stdout)]
    return answers


def differs(address: str, want: tuple[int, str], told: tuple[int, str]) -> bool:
    differs.count += want != told
    if want != told and differs.count <= SHOWN:
        print(f"{address}: geo says {told}, the other {want}")
    return want != told


differs.count = 0

if __name__ == "__main__":
    sys.exit(main())
