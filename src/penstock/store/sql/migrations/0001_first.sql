-- States: 0 delayed, 1 queued and fresh, 2 queued and filed, 3 running, 4 done, 5 dead, 6 cancelled, 7 expired.
-- A fresh task has an id above its project's `filed`: no index by pipeline knows it yet, see `operations.py`.

CREATE TABLE owner (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
);
INSERT INTO owner (one, epoch) VALUES (1, 0);

CREATE TABLE projects (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    filed INTEGER NOT NULL DEFAULT 0, -- tasks up to this id are in `filings`
    lines INTEGER NOT NULL DEFAULT 0  -- the position of the newest line of output
);

-- `rank` is the priority with its sign turned, so that the order of waiting is ascending.
CREATE TABLE tasks (
    project INTEGER NOT NULL,
    id INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    state INTEGER NOT NULL,
    outcome INTEGER,
    rank INTEGER NOT NULL,
    cost REAL NOT NULL,
    key TEXT,
    attempts INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    created REAL NOT NULL,
    due REAL,
    expires REAL NOT NULL,
    started REAL,
    finished REAL,
    version INTEGER NOT NULL,
    result BLOB,
    payload BLOB,
    PRIMARY KEY (project, id)
);
-- `state` stands in these so that they answer alone.
CREATE INDEX tasks_queued ON tasks (project, pipeline, rank, id, state) WHERE state = 2;
CREATE INDEX tasks_due ON tasks (project, due, id, state) WHERE state = 0;
CREATE INDEX tasks_apart ON tasks (project, state, pipeline, id) WHERE state NOT IN (1, 2, 4);

-- Which tasks a pipeline has, filed in bulk: inserting into an index by pipeline costs a page per task, sorted bulk does not.
CREATE TABLE filings (
    project INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    task INTEGER NOT NULL,
    PRIMARY KEY (project, pipeline, task)
) WITHOUT ROWID;

CREATE TABLE history (
    project INTEGER NOT NULL,
    task INTEGER NOT NULL,
    position INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    started REAL,
    finished REAL NOT NULL,
    version INTEGER NOT NULL,
    instance TEXT NOT NULL,
    error BLOB,
    PRIMARY KEY (project, task, position)
) WITHOUT ROWID;

-- The key of a whole batch belongs to its first task.
CREATE TABLE keys (
    project INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    key TEXT NOT NULL,
    task INTEGER NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (project, pipeline, key)
) WITHOUT ROWID;
CREATE INDEX keys_expires ON keys (project, expires);
CREATE INDEX keys_task ON keys (project, task);

CREATE TABLE output (
    project INTEGER NOT NULL,
    position INTEGER NOT NULL,
    task INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    function TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at REAL NOT NULL,
    stream TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (project, position)
) WITHOUT ROWID;
CREATE INDEX output_task ON output (project, task, position) WHERE task <> 0;
CREATE INDEX output_pipeline ON output (project, pipeline, position);
CREATE INDEX output_function ON output (project, function, position);

CREATE TABLE objects (
    project INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (project, kind, name)
) WITHOUT ROWID;

CREATE TABLE changes (
    project INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at REAL NOT NULL,
    action TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    before TEXT,
    after TEXT,
    PRIMARY KEY (project, sequence)
) WITHOUT ROWID;

CREATE TABLE versions (
    project INTEGER NOT NULL,
    function TEXT NOT NULL,
    number INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    settings TEXT NOT NULL,
    created REAL NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (project, function, number)
) WITHOUT ROWID;

CREATE TABLE notes (
    project INTEGER NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;
