/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Definitions of sources and streams, as weir's catalog tables hold them.
 *
 * The tables (install/10_catalog.sql) are the truth; what is here is a copy
 * read in one transaction.  Whoever needs a definition reads it anew at the
 * start of a worker, and again when the catalog generation in shared memory
 * has moved (worker.h).
 *
 * Every catalog function runs SQL as the owner of the extension, whoever
 * calls, with search_path pg_catalog, and switches back on return and on
 * error.  Checks of what the caller may do belong to the api_*.c functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_CATALOG_H
#define WEIR_CATALOG_H

#include "access/attnum.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/*
 * A source is stopped with this when its topic or cluster is not the one it
 * was reading; weir.seek() of a stream then accepts the new one.
 */
#define WEIR_SQLSTATE_IDENTITY "55W01"
#define ERRCODE_WEIR_IDENTITY MAKE_SQLSTATE('5', '5', 'W', '0', '1')

/* Schema of the tables, segments and state. */
#define WEIR_SCHEMA "weir"
#define WEIR_INTERNAL_SCHEMA "weir_internal"

/*
 * Names of a source's columns that begin so are weir's: users' columns cannot
 * have them, neither at creation nor by a rename.  So nothing that a user
 * declares can collide with what is added to the source's columns.
 */
#define SOURCE_RESERVED_PREFIX "kafka_"

/* A staged row's ctid, last column of a segment's view. */
#define SEGMENT_TID SOURCE_RESERVED_PREFIX "tid"

#define WEIR_NO_DURATION ((int64) -1)	/* an interval that is NULL */

/*
 * What create_* captured of its caller: all settings that could change what
 * the user's expressions are (catalog_settings.c).
 */
typedef struct CapturedSetting
{
	char	   *name;
	char	   *value;
} CapturedSetting;

typedef struct CapturedSettings
{
	List	   *list;			/* of CapturedSetting * */
} CapturedSettings;

typedef struct SourceDef
{
	int32		source_id;
	Oid			relid;			/* the foreign table */
	char	   *name;			/* its bare name */
	Oid			owner;			/* of the foreign table */
	Oid			server_id;
	char	   *server_name;
	char	   *topic;
	char	   *format;			/* "json" */
	AttrNumber	event_time;		/* attribute of the foreign table; of
								 * kafka_timestamp when none was named */
	int64		max_out_of_orderness;	/* us */
	int64		idle_timeout;	/* us, WEIR_NO_DURATION: never idle */
	int64		max_future_skew;	/* us, WEIR_NO_DURATION: no limit */
	char	   *start_from;		/* earliest, latest, a timestamp, or offsets */
	char	   *filter;			/* expression over the columns, or NULL */
	bool		stop_on_error;
	int			workers;
	int64		staging_limit;	/* bytes; 0: the setting */
	int64		dead_letter_limit;	/* rows; 0: the setting */
	bool		paused;
	bool		preview;		/* no stream reads it */
	bool		needs_key;		/* a stream uses kafka_key */
	bool		needs_headers;	/* a stream uses kafka_headers */
	char	   *stopped_message;	/* why it is stopped, or NULL */
	char	   *stopped_sqlstate;
	int			topic_incarnation;
	CapturedSettings settings;
	List	   *objects;		/* of char *: what the filter's analysis found
								 * at creation (objects.h) */
	bool		objects_recorded;	/* false: not known */
	TransactionId version;		/* of the row: catalog_source_changed() */
} SourceDef;

typedef struct StreamDef
{
	int32		stream_id;
	char	   *name;
	Oid			owner;
	int32		source_id;
	Oid			source_relid;
	char	   *query;			/* deparsed, every name qualified */
	Oid			target;
	bool		target_created;
	Oid			state;			/* state table; InvalidOid: none */
	List	   *key_columns;	/* of char *, the target's key; NIL: unkeyed */
	List	   *option_key;		/* options.key, for StreamOptions; NIL: none */
	bool		emit_on_close;
	int64		allowed_lateness;	/* us */
	bool		drop_late_rows; /* else dead letters */
	bool		stop_on_error;
	int64		batch_interval; /* us; 0: adapts */
	char	   *start_from;		/* own, or NULL: the source's */
	bool		on_idle_advance;	/* options.on_idle = 'advance' */
	double		max_dead_ratio;
	int64		dead_letter_limit;	/* rows; 0: the setting */
	int			fillfactor;
	bool		paused;
	char	   *failed_message; /* state failed, or NULL */
	char	   *failed_sqlstate;
	int64		seek_generation;	/* grows with each seek */
	CapturedSettings settings;
	List	   *objects;		/* of char *: what the query's analysis found
								 * at creation (objects.h) */
	bool		objects_recorded;	/* false: not known */
	TransactionId version;		/* of the row: catalog_stream_changed() */
} StreamDef;

/* NULL when it is not there (missing_ok); else ERROR 42704. */
extern SourceDef *catalog_source_by_id(int32 source_id, bool missing_ok);
extern SourceDef *catalog_source_by_relid(Oid relid, bool missing_ok);
extern StreamDef *catalog_stream_by_id(int32 stream_id, bool missing_ok);
extern StreamDef *catalog_stream_by_name(const char *name, bool missing_ok);

/* All of them, of SourceDef * and StreamDef *, by id. */
extern List *catalog_sources(void);
extern List *catalog_streams(void);
extern List *catalog_streams_of_source(int32 source_id);

/*
 * Has the definition been written or dropped since it was read?  Asked after
 * a definition error, in a new transaction: a rename that committed in
 * between makes the old text fail, and then a new start is all it needs.
 */
extern bool catalog_source_changed(const SourceDef *source);
extern bool catalog_stream_changed(const StreamDef *stream);

/* Written by workers; one row each, in the caller's transaction. */
extern void catalog_stop_source(int32 source_id, const char *sqlstate,
								const char *message);
extern void catalog_fail_stream(int32 stream_id, const char *sqlstate,
								const char *message);

/* Owner of the extension; schemas' oids; the extension's own oid. */
extern Oid	catalog_extension_owner(void);
extern Oid	catalog_internal_schema(void);
extern Oid	catalog_extension_oid(bool missing_ok);

/* Not in a database without weir, nor while it is made or dropped. */
extern bool catalog_tables_exist(void);

/*
 * USAGE on the schema of state and segments, which the statements of a stream
 * name: for an owner of streams, and back from one without any more.  Two
 * writers of the schema's ACL are an error: the one takes the lock of names
 * when there is something to grant, callers of the other hold it.
 */
extern void catalog_grant_usage(Oid owner);
extern void catalog_revoke_usage(Oid owner);

/*
 * Does the cookie in the catalog say that this database is the one the
 * sources were made in?  True as well when there is nothing yet.
 */
extern bool catalog_cookie_matches(void);
extern void catalog_write_cookie(void);

/*
 * Run user code as userid: SECURITY_RESTRICTED_OPERATION, the settings
 * given.  leave() undoes it; a (sub)transaction abort undoes it as well.
 */
typedef struct UserContext
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_level;
} UserContext;

extern void catalog_enter_user(UserContext *save, Oid userid,
							   const CapturedSettings *settings);
extern void catalog_leave_user(const UserContext *save);

/*
 * For the life of a worker's session: neutral settings for its own
 * statements; those captured that these do not care for, so that entering
 * need not set them each time.
 */
extern void catalog_neutral_session(void);
extern void catalog_settle_session(const CapturedSettings *settings);

/*
 * Until catalog_leave_neutral() (or an error) the settings are those that
 * stored and compiled texts are written and read under.
 */
extern int	catalog_enter_neutral(void);
extern void catalog_leave_neutral(int nest_level);

#endif							/* WEIR_CATALOG_H */
