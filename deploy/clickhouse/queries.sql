-- What an operator asks the history. Each query has its parameters in braces:
--
--   clickhouse-client --param_day=2026-11-21 --query="..."          (ClickHouse 19.14 or newer, older ones take no parameters)
--
-- Days and hours are UTC. FINAL counts rows that were inserted twice once; without it queries are faster.

-- top: the most downloaded files of a day
SELECT file, round(sum(downloads), 2) AS times, sum(bytes) AS sent, uniqExact(region) AS regions
FROM sun.downloads FINAL
WHERE toDate(at) = {day:Date}
GROUP BY file
ORDER BY times DESC, file
LIMIT 100;

-- hours: bytes by region and hour of a day
SELECT region, toStartOfHour(at) AS hour, sum(bytes) AS sent, round(sum(downloads), 2) AS times
FROM sun.downloads FINAL
WHERE toDate(at) = {day:Date}
GROUP BY region, hour
ORDER BY region, hour;

-- file: what a file did, by hour and region
SELECT toStartOfHour(at) AS hour, region, round(sum(downloads), 2) AS times, sum(bytes) AS sent, uniqExact(source) AS servers
FROM sun.downloads FINAL
WHERE file = {file:String}
GROUP BY hour, region
ORDER BY hour, region;

-- servers: what each server sent in a day
SELECT source, sum(bytes) AS sent, round(sum(downloads), 2) AS times, uniqExact(file) AS files
FROM sun.downloads FINAL
WHERE toDate(at) = {day:Date}
GROUP BY source
ORDER BY sent DESC, source;

-- owners: bytes by content server of a day
SELECT content_server, sum(bytes) AS sent, uniqExact(file) AS files
FROM sun.downloads FINAL
WHERE toDate(at) = {day:Date}
GROUP BY content_server
ORDER BY sent DESC, content_server;

-- days: how many rows and bytes each day takes, and whether some are there twice
SELECT toDate(at) AS day, count() AS rows, uniqExact(region, file, at, source, batch) AS different, sum(bytes) AS sent
FROM sun.downloads
GROUP BY day
ORDER BY day;
