-- Rows go after so many days by themselves. ClickHouse 19.6 or newer; with an older one, `sunctl history delete --before DAY`
-- in a timer does it.

ALTER TABLE sun.downloads MODIFY TTL at + INTERVAL 90 DAY;
