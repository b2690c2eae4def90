-- Writes of the hot path. {rows} becomes the VALUES of a batch; a row with id 0 is padding.

-- name: enqueue
-- rows: id pipeline rank cost key created due expires start_by start size
INSERT INTO tasks (
    project, id, pipeline, state, rank, cost, key, attempts, interruptions, created, due, expires, start_by, version, payload
)
SELECT
    ?1, v.id, v.pipeline,
    CASE WHEN v.due >= 0 THEN 0 WHEN v.id > (SELECT filed FROM projects WHERE id = ?1) THEN 1 ELSE 2 END,
    v.rank, v.cost, nullif(v.key, ''), 0, 0, v.created, nullif(v.due, -1.0), v.expires, nullif(v.start_by, -1.0), 0,
    substr(?2, v.start, v.size)
FROM {rows} AS v
WHERE v.id <> 0;

-- name: replace
-- rows: id rank cost due expires start_by start size
UPDATE tasks
SET
    rank = v.rank, cost = v.cost, due = v.due, expires = v.expires, start_by = nullif(v.start_by, -1.0),
    payload = substr(?2, v.start, v.size)
FROM {rows} AS v
WHERE tasks.project = ?1 AND tasks.id = v.id AND tasks.state = 0;

-- name: record
-- rows: id state outcome attempts interruptions started finished due version start size
UPDATE tasks
SET
    state = CASE WHEN v.state = 1 AND v.id <= (SELECT filed FROM projects WHERE id = ?1) THEN 2 ELSE v.state END,
    outcome = v.outcome,
    attempts = v.attempts,
    interruptions = v.interruptions,
    started = CASE WHEN v.started < 0 THEN tasks.started ELSE v.started END,
    finished = nullif(v.finished, -1.0),
    due = CASE WHEN v.due < 0 THEN tasks.due ELSE v.due END,
    start_by = NULL,
    version = CASE WHEN v.version = 0 THEN tasks.version ELSE v.version END,
    result = CASE WHEN v.size < 0 THEN tasks.result ELSE substr(?2, v.start, v.size) END,
    payload = CASE WHEN v.state IN (4, 6, 7) THEN NULL ELSE tasks.payload END
FROM {rows} AS v
WHERE tasks.project = ?1 AND tasks.id = v.id;

-- name: record_untraced
-- rows: id state outcome attempts interruptions started finished due version start size pipeline rank cost key created expires payload_start payload_size
INSERT INTO tasks (
    project, id, pipeline, state, outcome, rank, cost, key, attempts, interruptions, created, due, expires, started, finished,
    version, result, payload
)
SELECT
    ?1, v.id, v.pipeline,
    CASE WHEN v.state = 1 AND v.id <= (SELECT filed FROM projects WHERE id = ?1) THEN 2 ELSE v.state END,
    v.outcome, v.rank, v.cost, nullif(v.key, ''), v.attempts, v.interruptions, v.created, nullif(v.due, -1.0), v.expires,
    nullif(v.started, -1.0), nullif(v.finished, -1.0), v.version,
    CASE WHEN v.size >= 0 THEN substr(?2, v.start, v.size) END,
    CASE WHEN v.payload_size >= 0 AND v.state NOT IN (4, 6, 7) THEN substr(?2, v.payload_start, v.payload_size) END
FROM {rows} AS v
WHERE v.id <> 0
ON CONFLICT (project, id) DO UPDATE SET
    state = excluded.state,
    outcome = excluded.outcome,
    attempts = excluded.attempts,
    interruptions = excluded.interruptions,
    started = coalesce(excluded.started, started),
    finished = excluded.finished,
    due = coalesce(excluded.due, due),
    version = CASE WHEN excluded.version = 0 THEN version ELSE excluded.version END,
    result = coalesce(excluded.result, result),
    payload = excluded.payload;

-- name: add_history
-- rows: task position outcome started finished version instance start size
INSERT INTO history (project, task, position, outcome, started, finished, version, instance, error)
SELECT
    ?1, v.task, v.position, v.outcome, nullif(v.started, -1.0), v.finished, v.version, v.instance,
    CASE WHEN v.size >= 0 THEN substr(?2, v.start, v.size) END
FROM {rows} AS v
WHERE EXISTS (SELECT 1 FROM tasks WHERE tasks.project = ?1 AND tasks.id = v.task);

-- name: note_starts
-- rows: id attempts interruptions
UPDATE tasks SET state = 3, attempts = v.attempts, interruptions = v.interruptions, start_by = NULL
FROM {rows} AS v
WHERE tasks.project = ?1 AND tasks.id = v.id AND tasks.state IN (0, 1, 2);

-- name: promote
-- rows: id
UPDATE tasks SET state = CASE WHEN v.id > (SELECT filed FROM projects WHERE id = ?1) THEN 1 ELSE 2 END
FROM {rows} AS v
WHERE tasks.project = ?1 AND tasks.id = v.id AND tasks.state = 0;

-- name: recover
UPDATE tasks
SET
    state = CASE WHEN id > (SELECT filed FROM projects WHERE id = ?1) THEN 1 ELSE 2 END,
    interruptions = interruptions + 1
WHERE project = ?1 AND state NOT IN (1, 2, 4) AND state = 3;

-- Keys ------------------------------------------------------------------------------------------------------------------

-- name: known_keys
-- rows: place pipeline key created
SELECT json_group_array(json_array(v.place - 1, keys.task))
FROM {rows} AS v
CROSS JOIN keys ON keys.project = ?1 AND keys.pipeline = v.pipeline AND keys.key = v.key AND keys.expires > v.created
WHERE v.place <> 0;

-- name: open_windows
-- rows: place pipeline key at
SELECT json_group_array(json_array(v.place - 1, id, exact(created)))
FROM {rows} AS v
CROSS JOIN keys ON keys.project = ?1 AND keys.pipeline = v.pipeline AND keys.key = v.key
CROSS JOIN tasks ON tasks.project = ?1 AND tasks.id = keys.task
WHERE v.place <> 0 AND tasks.state = 0 AND tasks.outcome IS NULL AND tasks.due > v.at;

-- name: add_keys
-- rows: task pipeline key expires
INSERT INTO keys (project, pipeline, key, task, expires)
SELECT ?1, v.pipeline, v.key, v.task, v.expires FROM {rows} AS v WHERE v.task <> 0
ON CONFLICT (project, pipeline, key) DO UPDATE SET task = excluded.task, expires = excluded.expires;

-- Filing: what was fresh becomes known to the indexes by pipeline -------------------------------------------------------

-- name: fresh
SELECT count(*) FROM tasks WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1);

-- name: filed
SELECT filed FROM projects WHERE id = ?1;

-- name: next_filing
SELECT max(id), count(*)
FROM (
    SELECT id FROM tasks WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) ORDER BY id LIMIT ?2
);

-- name: file_queued
UPDATE tasks SET state = 2
WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND id <= ?2 AND state = 1;

-- name: file_all
INSERT INTO filings (project, pipeline, task)
SELECT project, pipeline, id FROM tasks
WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND id <= ?2
ORDER BY pipeline, id;

-- name: file_until
UPDATE projects SET filed = ?2 WHERE id = ?1;

-- name: file_late
-- rows: id pipeline
INSERT OR IGNORE INTO filings (project, pipeline, task)
SELECT ?1, v.pipeline, v.id FROM {rows} AS v
WHERE v.id <> 0 AND v.id <= (SELECT filed FROM projects WHERE id = ?1);

-- Dead letters, discarding and pruning ----------------------------------------------------------------------------------

-- name: choose_dead
SELECT json_group_array(id) FROM (
    SELECT id FROM tasks INDEXED BY tasks_apart
    WHERE project = ?1 AND pipeline = ?2 AND state NOT IN (1, 2, 4) AND state = 5
    ORDER BY id LIMIT ?3
);

-- name: remember_dead
INSERT INTO history (project, task, position, outcome, started, finished, version, instance, error)
SELECT project, id, ?4, outcome, started, finished, version, '', result FROM tasks
WHERE project = ?1 AND pipeline = ?2 AND state = 5 AND id IN (SELECT value FROM json_each(?3));

-- name: redrive
UPDATE tasks
SET
    state = CASE WHEN id > (SELECT filed FROM projects WHERE id = ?1) THEN 1 ELSE 2 END,
    attempts = 0, interruptions = 0, finished = NULL, expires = ?4
WHERE project = ?1 AND pipeline = ?2 AND state = 5 AND id IN (SELECT value FROM json_each(?3));

-- name: choose_apart
SELECT json_group_array(id) FROM (
    SELECT id FROM tasks INDEXED BY tasks_apart
    WHERE project = ?1 AND pipeline = ?2 AND state NOT IN (1, 2, 4) AND state = ?3
    LIMIT ?4
);

-- name: choose_queued
SELECT json_group_array(id) FROM (
    SELECT id FROM tasks INDEXED BY tasks_queued WHERE project = ?1 AND pipeline = ?2 AND state = 2 LIMIT ?3
);

-- name: choose_done
SELECT json_group_array(id) FROM (
    SELECT tasks.id FROM filings CROSS JOIN tasks ON tasks.project = ?1 AND tasks.id = filings.task AND tasks.state = 4
    WHERE filings.project = ?1 AND filings.pipeline = ?2
    LIMIT ?3
);

-- name: forget_filings
DELETE FROM filings WHERE project = ?1 AND (pipeline, task) IN (
    SELECT pipeline, id FROM tasks WHERE project = ?1 AND id IN (SELECT value FROM json_each(?2))
);

-- name: forget_keys
DELETE FROM keys WHERE project = ?1 AND task IN (SELECT value FROM json_each(?2));

-- name: forget_history
DELETE FROM history WHERE project = ?1 AND task IN (SELECT value FROM json_each(?2));

-- name: forget_output
DELETE FROM output WHERE project = ?1 AND task <> 0 AND task IN (SELECT value FROM json_each(?2));

-- name: forget_tasks
DELETE FROM tasks WHERE project = ?1 AND id IN (SELECT value FROM json_each(?2));

-- name: prune_output
DELETE FROM output WHERE project = ?1 AND position IN (
    SELECT position FROM (SELECT position, at FROM output WHERE project = ?1 ORDER BY position LIMIT ?3) WHERE at < ?2
);

-- name: prune_keys
DELETE FROM keys WHERE project = ?1 AND (pipeline, key) IN (
    SELECT pipeline, key FROM keys INDEXED BY keys_expires WHERE project = ?1 AND expires <= ?2 LIMIT ?3
);
