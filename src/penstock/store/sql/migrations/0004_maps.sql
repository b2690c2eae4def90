-- A map's items are the tasks with the ids behind its own, as many as it has. `ended` counts them by outcome once all have.
CREATE TABLE maps (
    project INTEGER NOT NULL,
    id INTEGER NOT NULL,
    pipeline TEXT NOT NULL,
    items INTEGER NOT NULL,
    created REAL NOT NULL,
    stragglers REAL,
    cancelled REAL,
    finished REAL,
    ended TEXT,
    PRIMARY KEY (project, id)
) WITHOUT ROWID;

-- Second runs of items that took too long.
CREATE TABLE twins (
    project INTEGER NOT NULL,
    map INTEGER NOT NULL,
    item INTEGER NOT NULL,
    task INTEGER NOT NULL,
    PRIMARY KEY (project, map, item)
) WITHOUT ROWID;
