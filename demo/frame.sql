-- One frame of the demo's view; called by demo.sh once a second, with the
-- psql variables lines and columns (of the screen), running (seconds),
-- before (what the first line of an earlier frame was), look (how to look
-- around), and bold, dim and plain (escape sequences, or nothing).
--
-- The first line of output is not for the eye: the counters, from which a
-- later frame tells rates.

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL jit = off;

-- how many windows and tweets there is room for
SELECT greatest(:lines - 18, 7) AS room \gset
SELECT least((:room + 1) * 4 / 7, 12) AS n_windows,
       :room - least((:room + 1) * 4 / 7, 12) AS n_tweets,
       least(greatest((:columns - 17) / 11, 4), 10) AS n_languages \gset

-- source and streams
SELECT coalesce(max(state), 'starting') AS source_state, coalesce(sum(rows_in), 0) AS source_rows,
       coalesce(sum(lag)::text, '') AS source_lag, coalesce(sum(rows_filtered), 0) AS filtered,
       coalesce(max(last_error) FILTER (WHERE state IN ('retrying', 'stopped')), '') AS source_error
FROM weir.stat_source WHERE source = 'tweets' AND stream IS NULL \gset

SELECT json_build_object('rows', :source_rows, 'at', extract(epoch FROM clock_timestamp()),
           'streams', (SELECT json_object_agg(stream, rows_in) FROM weir.stat_stream));

\pset null ''
SELECT format('%sweir: Kafka to PostgreSQL%s   %s UTC   running %s   %sCtrl-C ends it%s',
              :'bold', :'plain', to_char(clock_timestamp(), 'HH24:MI:SS'),
              to_char(make_interval(secs => :running), 'HH24:MI:SS'), :'dim', :'plain');
SELECT format('%slook around:  %s%s', :'dim', :'look', :'plain');
SELECT '';

SELECT format('%s%-15s%-12s%12s%8s%8s%11s%13s%s', :'bold', 'source, streams', ' state', 'rows in',
              'rows/s', 'lag', 'watermark', 'p50, p99 ms', :'plain');
WITH before AS (
    SELECT :'before'::json AS j, extract(epoch FROM clock_timestamp()) AS now
), line AS (
    SELECT 0 AS ord, 'tweets' AS name, :'source_state' AS state, :source_rows::numeric AS rows_in,
           (SELECT j ->> 'rows' FROM before)::numeric AS rows_before, nullif(:'source_lag', '')::numeric AS lag,
           NULL::timestamptz AS watermark, NULL::float8 AS p50, NULL::float8 AS p99, :'source_error' AS error
    UNION ALL
    SELECT CASE stream WHEN 'english' THEN 1 WHEN 'per_language' THEN 2 ELSE 3 END,
           '  ' || stream, state, rows_in,
           (SELECT j #>> ARRAY['streams', stream::text] FROM before)::numeric, lag,
           watermark, visible_ms_p50, visible_ms_p99,
           CASE WHEN state IN ('retrying', 'failed') THEN last_error END
    FROM weir.stat_stream
)
SELECT format('%-15s %-13s%10s%8s%8s', name, state, to_char(rows_in, 'FM999,999,990'),
              CASE WHEN rows_in >= rows_before  -- else counted anew
                   THEN to_char((rows_in - rows_before) / nullif(now - (j ->> 'at')::numeric, 0), 'FM999,990') END,
              to_char(lag, 'FM9,999,990'))
       || CASE WHEN ord = 0 THEN format('%24s', to_char(:filtered::bigint, 'FM999,990') || ' without language')
               ELSE format('%11s%6s%7s', to_char(watermark, 'HH24:MI:SS'), to_char(p50, 'FM99990'), to_char(p99, 'FM99990')) END
       || CASE WHEN error <> '' THEN format(E'\n    %s! %s%s', :'bold', left(error, :columns - 6), :'plain') ELSE '' END
FROM line, before ORDER BY ord, name;
SELECT '';

-- what did not get through
SELECT format('%sdead letters%s  %s', :'bold', :'plain',
              coalesce((SELECT string_agg(format('%s%s %s', stream || ': ', reason, to_char(n, 'FM999,990')), '   '
                                          ORDER BY stream NULLS FIRST, reason)
                        FROM (SELECT stream, reason, count(*) AS n FROM weir.dead_letter GROUP BY 1, 2) d), 'none'));
SELECT '';

-- tweets per language, newest windows first
SELECT ARRAY(SELECT language FROM per_language
             WHERE window_start >= (SELECT max(window_start) FROM per_language) - interval '2 minutes'
             GROUP BY language ORDER BY sum(tweets) DESC, language LIMIT :n_languages) AS shown \gset
SELECT format('%s%-17s%s%s', :'bold', 'tweets in 10 s', string_agg(lpad(l, 11), '' ORDER BY n), :'plain')
FROM unnest(:'shown'::text[]) WITH ORDINALITY AS s (l, n);
WITH newest AS (
    SELECT window_start, window_end FROM per_language GROUP BY 1, 2 ORDER BY 1 DESC LIMIT :n_windows
)
SELECT to_char(w.window_start, 'HH24:MI:SS ') ||
       CASE WHEN w.window_end <= weir.watermark('per_language') THEN 'closed' ELSE 'open  ' END || '  ' ||
       string_agg(lpad(coalesce(to_char(p.tweets, 'FM9,999,990'), ''), 11), '' ORDER BY s.n)
FROM newest w CROSS JOIN unnest(:'shown'::text[]) WITH ORDINALITY AS s (l, n)
     LEFT JOIN per_language p ON p.window_start = w.window_start AND p.language = s.l
GROUP BY w.window_start, w.window_end ORDER BY w.window_start DESC;
SELECT '';

-- trends
SELECT coalesce(max(window_start)::text, '') AS closed FROM words \gset
SELECT format('%stop words of 4 letters and more, last closed minute%s  %s', :'bold', :'plain',
              CASE WHEN :'closed' = '' THEN '(none yet)'
                   ELSE to_char(nullif(:'closed', '')::timestamptz, 'HH24:MI:SS') || ' to '
                        || to_char(nullif(:'closed', '')::timestamptz + interval '1 minute', 'HH24:MI:SS') END)
FROM (SELECT 1) AS one;
SELECT '  ' || coalesce(string_agg(format('%s %s', word, n), '   ' ORDER BY n DESC, word), '')
FROM (SELECT word, n FROM words
      WHERE window_start = nullif(:'closed', '')::timestamptz AND length(word) > 3
      ORDER BY n DESC, word LIMIT greatest((:columns - 2) / 14, 5)) w;
SELECT '';

-- the lake
SELECT format('%snewest English tweets%s  (of %s)', :'bold', :'plain', to_char(count(*), 'FM999,999,990')) FROM lake.english;
SELECT to_char(at, '  HH24:MI:SS  ') || left(regexp_replace(text, '\s+', ' ', 'g'), :columns - 12)
FROM lake.english ORDER BY at DESC, id DESC LIMIT :n_tweets;
COMMIT;
