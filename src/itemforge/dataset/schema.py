"""The tables of `DIR/dataset.sqlite`, in the order in which they came to be.

The number of migrations that a file has had is its `user_version`. A migration that is out is never changed;
what changes is added as another.
"""

MIGRATIONS = (
    """
    CREATE TABLE pictures (
        sha256 TEXT PRIMARY KEY,
        sha1 TEXT NOT NULL,
        mime TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        added_at TEXT NOT NULL
    );
    CREATE INDEX pictures_by_sha1 ON pictures (sha1);

    -- Where a picture was seen. `sha256` is NULL until it has been fetched.
    CREATE TABLE sources (
        id INTEGER PRIMARY KEY,
        sha256 TEXT REFERENCES pictures (sha256),
        item TEXT NOT NULL,
        page TEXT NOT NULL,
        section TEXT NOT NULL,
        url TEXT NOT NULL,
        title TEXT NOT NULL,
        uploader TEXT NOT NULL,
        licence TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        sha1 TEXT NOT NULL,
        first_seen TEXT NOT NULL,
        UNIQUE (url, sha1, page, section, item)
    );
    CREATE INDEX sources_by_picture ON sources (sha256);

    -- What the crawl has found. `url` is a file title where the wiki lists a file but has no address for it.
    CREATE TABLE queue (
        url TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        mime TEXT NOT NULL,
        bytes INTEGER,
        sha1 TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'failed')),
        reason TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL,
        sha256 TEXT REFERENCES pictures (sha256)
    );
    CREATE INDEX queue_by_state ON queue (state, next_try);

    -- What a later step made of a picture, by which recipe.
    CREATE TABLE results (
        sha256 TEXT NOT NULL REFERENCES pictures (sha256),
        step TEXT NOT NULL,
        recipe TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('ok', 'aside', 'flagged')),
        reason TEXT NOT NULL,
        output TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (sha256, step)
    );

    CREATE TABLE captions (
        sha256 TEXT PRIMARY KEY REFERENCES pictures (sha256),
        fields TEXT NOT NULL,
        provider TEXT NOT NULL,
        prompt_version TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('auto', 'edited', 'approved', 'rejected')),
        version INTEGER NOT NULL,
        updated_at TEXT NOT NULL
    );

    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        sha256 TEXT NOT NULL REFERENCES pictures (sha256),
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        at TEXT NOT NULL,
        before TEXT,
        after TEXT
    );
    CREATE INDEX history_by_picture ON history (sha256, id);
    """,
    """
    -- What one deed of a person changed, be it a thousand pictures, and the deed that it takes back.
    ALTER TABLE history ADD COLUMN deed TEXT NOT NULL DEFAULT '';
    ALTER TABLE history ADD COLUMN undoes TEXT NOT NULL DEFAULT '';
    CREATE INDEX history_by_deed ON history (deed);
    """,
)
