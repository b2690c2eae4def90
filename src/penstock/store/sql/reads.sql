-- Reads answer in one row, JSON and one blob: each row handed to Python costs a turn of its lock.
-- moment(x) becomes an integer of 2**-31 seconds, exact for every moment after January 1970, which JSON keeps as it is.
-- exact(x) becomes text that reads back as the same number, for moments that are compared with the stored ones.

-- fragment: tasks by rank
SELECT
    json_group_array(json_array(
        id, pipeline, rank, cost, key, attempts, interruptions, moment(created), exact(due), moment(expires), exact(start_by),
        length(payload), length(body)
    )),
    CAST(group_concat(CAST(body AS TEXT), '') AS BLOB)
FROM (
    SELECT tasks.*, CASE WHEN length(tasks.payload) <= ?6 THEN tasks.payload END AS body
    FROM chosen CROSS JOIN tasks ON tasks.project = ?1 AND tasks.id = chosen.id
    ORDER BY tasks.rank, tasks.id
);

-- fragment: tasks by due
SELECT
    json_group_array(json_array(
        id, pipeline, rank, cost, key, attempts, interruptions, moment(created), exact(due), moment(expires), exact(start_by),
        length(payload), length(body)
    )),
    CAST(group_concat(CAST(body AS TEXT), '') AS BLOB)
FROM (
    SELECT tasks.*, CASE WHEN length(tasks.payload) <= ?6 THEN tasks.payload END AS body
    FROM chosen CROSS JOIN tasks ON tasks.project = ?1 AND tasks.id = chosen.id
    ORDER BY tasks.due, tasks.id
);

-- fragment: stored
SELECT
    json_group_array(json_array(
        id, pipeline, state, outcome, rank, cost, key, attempts, interruptions, moment(created), exact(due), moment(expires),
        exact(start_by), moment(started), moment(finished), version, length(result)
    )),
    CAST(group_concat(CAST(result AS TEXT), '') AS BLOB)
FROM (
    SELECT tasks.* FROM chosen CROSS JOIN tasks ON tasks.project = ?1 AND tasks.id = chosen.id
    ORDER BY tasks.id DESC
);

-- name: waiting
WITH
filed (id) AS (SELECT filed FROM projects WHERE id = ?1),
found (id, rank) AS (
    SELECT * FROM (
        SELECT id, rank FROM tasks INDEXED BY tasks_queued
        WHERE project = ?1 AND pipeline = ?2 AND state = 2 AND (rank, id) > (?3, ?4)
        ORDER BY rank, id LIMIT ?5
    )
    UNION ALL
    SELECT * FROM (
        SELECT id, rank FROM tasks
        WHERE project = ?1 AND id > (SELECT id FROM filed) AND state = 1 AND pipeline = ?2 AND (rank, id) > (?3, ?4)
        ORDER BY rank, id LIMIT ?5
    )
),
chosen (id, rank) AS (SELECT id, rank FROM found ORDER BY rank, id LIMIT ?5)
{tasks by rank};

-- name: ahead
SELECT count(*) FROM (
    SELECT id FROM tasks INDEXED BY tasks_queued
    WHERE project = ?1 AND pipeline = ?2 AND state = 2 AND (rank, id) > (?3, ?4) AND (rank, id) < (?5, ?6)
        AND id NOT IN (SELECT value FROM json_each(?7))
    UNION ALL
    SELECT id FROM tasks
    WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND state = 1 AND pipeline = ?2
        AND (rank, id) > (?3, ?4) AND (rank, id) < (?5, ?6) AND id NOT IN (SELECT value FROM json_each(?7))
    LIMIT ?8
);

-- name: due
WITH chosen (id) AS (
    SELECT id FROM tasks INDEXED BY tasks_due
    WHERE project = ?1 AND state = 0 AND due <= ?2 AND (due, id) > (?3, ?4)
    ORDER BY due, id LIMIT ?5
)
{tasks by due};

-- name: expiring
WITH chosen (id) AS (
    SELECT id FROM tasks INDEXED BY tasks_start_by
    WHERE project = ?1 AND start_by IS NOT NULL AND (start_by, id) > (?2, ?3)
    ORDER BY start_by, id LIMIT ?4
)
{stored};

-- name: payloads
SELECT json_group_array(json_array(id, length(payload))), CAST(group_concat(CAST(payload AS TEXT), '') AS BLOB)
FROM tasks
WHERE project = ?1 AND id IN (SELECT value FROM json_each(?2)) AND payload IS NOT NULL;

-- name: task
WITH chosen (id) AS (SELECT ?2)
{stored};

-- name: history
SELECT
    json_group_array(json_array(outcome, moment(started), moment(finished), version, instance, length(error))),
    CAST(group_concat(CAST(error AS TEXT), '') AS BLOB)
FROM (SELECT * FROM history WHERE project = ?1 AND task = ?2 ORDER BY position);

-- name: list_all
WITH chosen (id) AS (
    SELECT id FROM tasks WHERE project = ?1 AND id < ?4 AND (?3 IS NULL OR state = ?3) ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: list_apart
WITH chosen (id) AS (
    SELECT id FROM tasks INDEXED BY tasks_apart
    WHERE project = ?1 AND state NOT IN (1, 2, 4) AND state = ?3 AND id < ?4
    ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: list_queued
WITH chosen (id) AS (
    SELECT id FROM (
        SELECT id FROM tasks INDEXED BY tasks_queued WHERE project = ?1 AND state = 2 AND id < ?4
        UNION ALL
        SELECT id FROM tasks
        WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND id < ?4 AND state = 1
    )
    ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: list_pipeline
WITH chosen (id) AS (
    SELECT id FROM (
        SELECT * FROM (
            SELECT filings.task AS id FROM filings
            WHERE filings.project = ?1 AND filings.pipeline = ?2 AND filings.task < ?4 AND (
                ?3 IS NULL OR ?3 = (SELECT state FROM tasks WHERE tasks.project = ?1 AND tasks.id = filings.task)
            )
            ORDER BY filings.task DESC LIMIT ?5
        )
        UNION ALL
        SELECT id FROM tasks
        WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND id < ?4 AND pipeline = ?2
            AND (?3 IS NULL OR state = ?3)
    )
    ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: list_pipeline_apart
WITH chosen (id) AS (
    SELECT id FROM tasks INDEXED BY tasks_apart
    WHERE project = ?1 AND pipeline = ?2 AND state NOT IN (1, 2, 4) AND state = ?3 AND id < ?4
    ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: list_pipeline_queued
WITH chosen (id) AS (
    SELECT id FROM (
        SELECT id FROM tasks INDEXED BY tasks_queued WHERE project = ?1 AND pipeline = ?2 AND state = 2 AND id < ?4
        UNION ALL
        SELECT id FROM tasks
        WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND id < ?4 AND state = 1 AND pipeline = ?2
    )
    ORDER BY id DESC LIMIT ?5
)
{stored};

-- name: ended
SELECT max(id), min(created), json_group_array(id) FILTER (WHERE state IN (4, 6, 7) AND finished < ?3) FROM (
    SELECT id, created, state, finished FROM tasks WHERE project = ?1 AND id > ?2 ORDER BY id LIMIT ?4
);

-- name: counts
SELECT json_group_array(json_array(pipeline, state, n)) FROM (
    SELECT pipeline, state, count(*) AS n FROM tasks INDEXED BY tasks_apart
    WHERE project = ?1 AND state NOT IN (1, 2, 4) AND state IN (0, 3, 5) GROUP BY state, pipeline
    UNION ALL
    SELECT pipeline, 2, count(*) FROM tasks INDEXED BY tasks_queued WHERE project = ?1 AND state = 2 GROUP BY pipeline
    UNION ALL
    SELECT pipeline, 1, count(*) FROM tasks
    WHERE project = ?1 AND id > (SELECT filed FROM projects WHERE id = ?1) AND state = 1 GROUP BY pipeline
);

-- name: output
SELECT json_group_array(json_array(position, task, pipeline, function, attempt, moment(at), stream, text)) FROM (
    SELECT * FROM output
    WHERE project = ?1 AND position > ?5
        AND (?2 IS NULL OR task = ?2) AND (?3 IS NULL OR pipeline = ?3) AND (?4 IS NULL OR function = ?4)
    ORDER BY position LIMIT ?6
);

-- name: output_of_task
SELECT json_group_array(json_array(position, task, pipeline, function, attempt, moment(at), stream, text)) FROM (
    SELECT * FROM output INDEXED BY output_task
    WHERE project = ?1 AND position > ?5 AND task <> 0 AND task = ?2
        AND (?3 IS NULL OR pipeline = ?3) AND (?4 IS NULL OR function = ?4)
    ORDER BY position LIMIT ?6
);

-- name: output_of_pipeline
SELECT json_group_array(json_array(position, task, pipeline, function, attempt, moment(at), stream, text)) FROM (
    SELECT * FROM output INDEXED BY output_pipeline
    WHERE project = ?1 AND position > ?5 AND pipeline = ?3 AND (?4 IS NULL OR function = ?4)
    ORDER BY position LIMIT ?6
);

-- name: output_of_function
SELECT json_group_array(json_array(position, task, pipeline, function, attempt, moment(at), stream, text)) FROM (
    SELECT * FROM output INDEXED BY output_function
    WHERE project = ?1 AND position > ?5 AND function = ?4
    ORDER BY position LIMIT ?6
);
