/*-------------------------------------------------------------------------
 *
 * api_source.c
 *	  weir.create_source(): a foreign table and its row in the catalog.
 *
 * The text of "columns" becomes part of a CREATE FOREIGN TABLE that runs as
 * the caller.  It is first parsed by itself, in that place, and the parse
 * tree must be one command with nothing but the column list taken from the
 * text; what would end the list early ("a int) SERVER other; DROP ...")
 * changes the tree or does not parse.  Types, constraints, privileges on the
 * server and the schema, and column options are then PostgreSQL's own checks
 * (the options by the validator in fdw.c).
 *
 * What PostgreSQL allows in a foreign table but ingest cannot honour is
 * checked on the finished relation: volatile defaults, identity columns, an
 * event-time column of another type.  All is one transaction, so an error
 * leaves nothing behind.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api.h"
#include "catalog_spi.h"
#include "ingest.h"
#include "ingest_decode_path.h"
#include "settings.h"
#include "source_filter.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(weir_create_source);

#define KAFKA_COLUMNS \
	"kafka_topic text, kafka_partition int, kafka_offset bigint," \
	" kafka_timestamp timestamptz, kafka_key bytea," \
	" kafka_headers weir.kafka_header[]"

/* Of the command that only parses the columns. */
#define PROBE_SERVER "s"

static const OptionName source_options[] = {
	{"staging_limit", false},
	{"dead_letter_limit", false},
	{NULL, false}
};

/* Arguments of create_source, checked one by one. */
typedef struct SourceArgs
{
	char	   *name;
	char	   *server;
	char	   *topic;
	char	   *columns;
	char	   *format;
	char	   *event_time;
	Interval   *max_out_of_orderness;
	Interval   *idle_timeout;
	Interval   *max_future_skew;
	Position   *start_from;
	char	   *filter;
	char	   *on_error;
	int			workers;
	Jsonb	   *options;
	bool		if_not_exists;
} SourceArgs;

/* A column whose name PostgreSQL has cut. */
typedef struct LongName
{
	char	   *column;
	char	   *written;
} LongName;

static void
not_a_column_list(void)
{
	ereport(ERROR,
			errcode(ERRCODE_SYNTAX_ERROR),
			errmsg("\"columns\" must be one list of columns"),
			errhint("Write it as between the parentheses of CREATE FOREIGN TABLE."));
}

/*
 * Is text one column list?  See the head of the file.  Returns the columns
 * whose names are too long, of LongName *.
 */
static List *
check_columns(const char *text)
{
	static const char prefix[] = "CREATE FOREIGN TABLE t (\n";
	List	   *long_names = NIL;
	List	   *trees;
	CreateForeignTableStmt *stmt;
	ListCell   *lc;
	int			ncolumns = 0;

	trees = source_parse_wrapped(prefix, text, "\n) SERVER " PROBE_SERVER,
								 "columns");
	if (list_length(trees) != 1)
		not_a_column_list();
	stmt = (CreateForeignTableStmt *) linitial_node(RawStmt, trees)->stmt;
	if (!IsA(stmt, CreateForeignTableStmt) ||
		strcmp(stmt->servername, PROBE_SERVER) != 0 ||
		stmt->options != NIL || stmt->base.inhRelations != NIL ||
		stmt->base.partbound != NULL)
		not_a_column_list();

	foreach(lc, stmt->base.tableElts)
	{
		ColumnDef  *column = lfirst(lc);
		char	   *written;

		if (!IsA(column, ColumnDef))
			continue;
		ncolumns++;
		written = source_written_name(text +column->location -
									  strlen(prefix));
		if (strlen(written) >= NAMEDATALEN)
		{
			LongName   *name = palloc(sizeof(LongName));

			name->column = column->colname;
			name->written = written;
			long_names = lappend(long_names, name);
		}
		if (strncmp(column->colname, "kafka_", 6) == 0)
			ereport(ERROR,
					errcode(ERRCODE_RESERVED_NAME),
					errmsg("column name \"%s\" is reserved", column->colname),
					errdetail("The columns of a source that begin with \"kafka_\" are added to it."));
	}
	if (ncolumns == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				errmsg("a source needs at least one column"));
	return long_names;
}

/*
 * A column's default path is its name as it was written, which the documents
 * have, not what PostgreSQL has left of it.
 */
static void
keep_long_names(Oid relid, List *long_names)
{
	ListCell   *lc;

	foreach(lc, long_names)
	{
		LongName   *name = lfirst(lc);
		AttrNumber	attnum = get_attnum(relid, name->column);
		bool		has_path = get_attgenerated(relid, attnum) != '\0';
		ListCell   *lo;

		foreach(lo, GetForeignColumnOptions(relid, attnum))
			has_path |= strcmp(lfirst_node(DefElem, lo)->defname, "path") == 0;
		if (!has_path)
			api_execute(psprintf("ALTER FOREIGN TABLE %s ALTER COLUMN %s"
								 " OPTIONS (ADD path %s)",
								 api_qualified_name(relid),
								 quote_identifier(name->column),
								 quote_literal_cstr(column_path_of_name(name->written))));
	}
}

static void
read_args(FunctionCallInfo fcinfo, SourceArgs *args)
{
	static const char *const formats[] = {"json", NULL};
	static const char *const later[] = {
		"csv", "text", "avro", "regexp", "protobuf", "debezium"
	};
	static const char *const actions[] = {"dead_letter", "stop", NULL};

	args->name = api_text_arg(fcinfo, 0, "name");
	args->server = api_text_arg(fcinfo, 1, "server");
	args->topic = api_text_arg(fcinfo, 2, "topic");
	args->columns = api_text_arg(fcinfo, 3, "columns");
	args->format = api_text_arg(fcinfo, 4, "format");
	args->event_time = api_text_arg(fcinfo, 5, NULL);
	args->max_out_of_orderness =
		api_duration_arg(fcinfo, 6, "max_out_of_orderness", false);
	args->idle_timeout = api_duration_arg(fcinfo, 7, "idle_timeout", true);
	args->max_future_skew =
		api_duration_arg(fcinfo, 8, "max_future_skew", true);
	args->start_from = position_parse(api_text_arg(fcinfo, 9, "start_from"),
									  "start_from");
	args->filter = api_text_arg(fcinfo, 10, NULL);
	args->on_error = api_text_arg(fcinfo, 11, "on_error");
	args->workers = PG_ARGISNULL(12) ? 1 : PG_GETARG_INT32(12);
	args->options = api_options_arg(fcinfo, 13);
	args->if_not_exists = !PG_ARGISNULL(14) && PG_GETARG_BOOL(14);

	for (int i = 0; i < lengthof(later); i++)
		if (strcmp(args->format, later[i]) == 0)
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("format \"%s\" is not supported yet", args->format));
	(void) options_choice(args->format, formats, "format");
	(void) options_choice(args->on_error, actions, "on_error");

	/* Kafka's own rule for names of topics */
	if (args->topic[0] == '\0' || strlen(args->topic) > 249 ||
		strspn(args->topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(args->topic) ||
		strcmp(args->topic, ".") == 0 || strcmp(args->topic, "..") == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("invalid topic name \"%s\"", args->topic),
				errdetail("A topic's name has 1 to 249 letters, digits, '.', '_' and '-'."));

	if (args->workers < 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"workers\" must be at least 1"));
	if (args->workers > 1)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("more than one worker a source is not supported yet"));

	options_check_keys(args->options, source_options, "source");
	(void) options_size(args->options, "staging_limit", 0);
	(void) options_count(args->options, "dead_letter_limit", 0, 1,
						 PG_INT64_MAX);
}

/* The server must be one of weir's; its USAGE is PostgreSQL's to check. */
static void
check_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, false);
	ForeignDataWrapper *fdw = GetForeignDataWrapper(server->fdwid);

	if (strcmp(fdw->fdwname, "weir_kafka") != 0)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("server \"%s\" is not a Kafka server", name),
				errdetail("Its foreign data wrapper is \"%s\".", fdw->fdwname),
				errhint("Use a server of the foreign data wrapper \"weir_kafka\"."));
}

/* Is it a type, or an array or domain of one, that can have epochs? */
static bool
takes_epochs(Oid type)
{
	Oid			element;

	type = getBaseType(type);
	element = get_element_type(type);
	if (OidIsValid(element))
		type = getBaseType(element);
	return type == TIMESTAMPTZOID || type == TIMESTAMPOID || type == DATEOID;
}

static bool
has_epoch_option(Oid relid, AttrNumber attnum)
{
	ListCell   *lc;

	foreach(lc, GetForeignColumnOptions(relid, attnum))
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "epoch") == 0)
			return true;
	}
	return false;
}

/* Kafka's columns come last, unless an event trigger has been at work. */
static void
check_kafka_columns(Relation rel)
{
	static const char *const names[SOURCE_KAFKA_ATTRS] = {
		"kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp",
		"kafka_key", "kafka_headers"
	};
	TupleDesc	desc = RelationGetDescr(rel);
	bool		right = desc->natts >= SOURCE_KAFKA_ATTRS;

	for (int i = 0; right && i < SOURCE_KAFKA_ATTRS; i++)
	{
		Form_pg_attribute attr =
		TupleDescAttr(desc, desc->natts - SOURCE_KAFKA_ATTRS + i);

		right = strcmp(NameStr(attr->attname), names[i]) == 0;
	}
	for (int i = 0; right && i < desc->natts; i++)
		right = !TupleDescAttr(desc, i)->attisdropped;
	if (!right)
		api_changed_meanwhile(psprintf("the columns of source \"%s\" were changed while it was made",
									   RelationGetRelationName(rel)));
}

/* What PostgreSQL allows in a foreign table and ingest cannot do. */
static void
check_relation(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	/* the view of a segment has one more */
	if (desc->natts >= MaxHeapAttributeNumber)
		ereport(ERROR,
				errcode(ERRCODE_TOO_MANY_COLUMNS),
				errmsg("a source can have at most %d columns",
					   MaxHeapAttributeNumber - 1 - SOURCE_KAFKA_ATTRS));
	check_kafka_columns(rel);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		const char *name = NameStr(attr->attname);

		if (attr->attidentity != '\0')
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("identity column \"%s\" is not supported in a source",
						   name));
		if (attr->attgenerated != '\0' &&
			attr->attgenerated != ATTRIBUTE_GENERATED_STORED)
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("virtual generated column \"%s\" is not supported in a source",
						   name),
					errhint("Declare it STORED."));
		if (!attr->attisdropped && !takes_epochs(attr->atttypid) &&
			has_epoch_option(RelationGetRelid(rel), attr->attnum))
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("column option \"epoch\" of \"%s\" needs a column of type timestamp or date",
						   name));
		if (attr->attgenerated != '\0' &&
			GetForeignColumnOptions(RelationGetRelid(rel), attr->attnum) != NIL)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("generated column \"%s\" cannot have column options",
						   name));
	}
	if (desc->constr == NULL)
		return;
	for (int i = 0; i < desc->constr->num_defval; i++)
	{
		AttrDefault *def = &desc->constr->defval[i];

		if (contain_volatile_functions(stringToNode(def->adbin)))
			ereport(ERROR,
					errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					errmsg("DEFAULT of column \"%s\" must not be volatile",
						   NameStr(TupleDescAttr(desc, def->adnum - 1)->attname)),
					errdetail("A record may be read more than once and must give the same row."));
	}
}

/* The column of a relation with this name, or the nearest to it, or NULL. */
static const char *
near_column(TupleDesc desc, const char *name)
{
	const char **names = palloc(sizeof(char *) * desc->natts);

	for (int i = 0; i < desc->natts; i++)
	{
		names[i] = NameStr(TupleDescAttr(desc, i)->attname);
		if (pg_strcasecmp(names[i], name) == 0)
			return names[i];
	}
	return options_nearest(name, names, desc->natts);
}

static void
no_event_time(TupleDesc desc, const char *name)
{
	const char *near = near_column(desc, name);
	const char *quoted = near ? quote_identifier(near) : NULL;

	ereport(ERROR,
			errcode(ERRCODE_UNDEFINED_COLUMN),
			errmsg("event-time column \"%s\" does not exist", name),
			near == NULL ? 0 :
			strcmp(near, quoted) == 0 ?
			errhint("Perhaps you meant %s.", quoted) :
			errhint("Perhaps you meant %s. A name that is not all in lower case keeps its case only in double quotes, in \"columns\" too.",
					quoted));
}

/* The attribute of a name, or InvalidAttrNumber. */
static AttrNumber
attribute_named(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i + 1;
	return InvalidAttrNumber;
}

/*
 * Attribute of the event time; of kafka_timestamp when name is NULL.  A name
 * is first taken as it stands, and then as SQL takes it.
 */
static AttrNumber
event_time_attribute(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *exact = pstrdup(name ? name : "kafka_timestamp");
	AttrNumber	attnum;
	Oid			type;

	truncate_identifier(exact, strlen(exact), false);
	attnum = attribute_named(desc, exact);
	if (attnum == InvalidAttrNumber)
	{
		const char *folded = api_bare_name(name, "event_time");

		attnum = attribute_named(desc, folded);
		if (attnum == InvalidAttrNumber)
			no_event_time(desc, name);
	}
	type = TupleDescAttr(desc, attnum - 1)->atttypid;
	if (type != TIMESTAMPTZOID && type != TIMESTAMPOID)
		ereport(ERROR,
				errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("event-time column \"%s\" has type %s",
					   NameStr(TupleDescAttr(desc, attnum - 1)->attname),
					   format_type_be(type)),
				errhint("Declare it as timestamp with time zone or timestamp; epochs in numbers are converted."));
	return attnum;
}

static void
insert_source(const SourceArgs *args, Oid relid, AttrNumber event_time,
			  List *objects)
{
	CatalogAccess access;
	CapturedSettings settings;
	CatalogArg	values[] = {
		{REGCLASSOID, ObjectIdGetDatum(relid), false},
		CATALOG_TEXT(args->topic),
		CATALOG_TEXT(args->format),
		{INT2OID, Int16GetDatum(event_time), false},
		CATALOG_INTERVAL(args->max_out_of_orderness),
		CATALOG_INTERVAL(args->idle_timeout),
		CATALOG_INTERVAL(args->max_future_skew),
		CATALOG_TEXT(args->start_from->text),
		CATALOG_TEXT(args->filter),
		CATALOG_TEXT(args->on_error),
		CATALOG_INT4(args->workers),
		CATALOG_JSONB(args->options),
		CATALOG_TEXTS((Datum) 0),
		{TEXTARRAYOID, catalog_objects_datum(objects), false},
	};

	catalog_capture_settings(&settings);
	values[12].value = catalog_settings_datum(&settings);
	values[12].isnull = false;

	catalog_begin(&access);
	if (catalog_execute("INSERT INTO weir_internal.source"
						" (relation, topic, format, event_time,"
						"  max_out_of_orderness, idle_timeout,"
						"  max_future_skew, start_from, filter, on_error,"
						"  workers, options, settings, objects)"
						" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
						"  $11, $12, $13, $14)", lengthof(values), values) != 1)
		elog(ERROR, "source was not recorded");
	/* The first source binds the catalog to this database. */
	if (catalog_execute("SELECT 1 FROM weir_internal.cookie UNION ALL"
						" SELECT 1 FROM weir_internal.source"
						"  WHERE relation <> $1", 1, values) == 0)
		catalog_write_cookie();
	catalog_end(&access);
}

/* The relation when the source is there already, else InvalidOid. */
static Oid
existing_source(const RangeVar *rv, Oid nsp, bool if_not_exists)
{
	Oid			relid = get_relname_relid(rv->relname, nsp);

	if (!OidIsValid(relid))
		return InvalidOid;
	if (catalog_source_by_relid(relid, true) == NULL)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_TABLE),
				errmsg("relation \"%s\" already exists", rv->relname));
	if (!if_not_exists)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("source \"%s\" already exists", rv->relname));
	ereport(NOTICE,
			errcode(ERRCODE_DUPLICATE_OBJECT),
			errmsg("source \"%s\" already exists, skipping", rv->relname));
	return relid;
}

Datum
weir_create_source(PG_FUNCTION_ARGS)
{
	SourceArgs	args;
	List	   *long_names;
	RangeVar   *rv;
	Oid			nsp;
	Oid			relid;
	Relation	rel;
	AttrNumber	event_time;
	List	   *objects = NIL;

	api_require_writable("weir.create_source()");
	read_args(fcinfo, &args);
	rv = api_relation_name(args.name, "name");

	catalog_lock_names();
	nsp = api_creation_schema(rv);
	relid = existing_source(rv, nsp, args.if_not_exists);
	if (OidIsValid(relid))
		PG_RETURN_OID(relid);
	api_check_name_free(rv->relname);
	check_server(args.server);
	long_names = check_columns(args.columns);

	api_execute(psprintf("CREATE FOREIGN TABLE %s (\n%s\n, " KAFKA_COLUMNS
						 ") SERVER %s",
						 quote_qualified_identifier(rv->schemaname,
													rv->relname),
						 args.columns, quote_identifier(args.server)));
	relid = get_relname_relid(rv->relname, nsp);
	keep_long_names(relid, long_names);
	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		api_changed_meanwhile(psprintf("foreign table %s is not there after it was made",
									   quote_qualified_identifier(rv->schemaname, rv->relname)));
	rel = table_open(relid, AccessShareLock);
	check_relation(rel);
	event_time = event_time_attribute(rel, args.event_time);
	if (args.filter)
		args.filter = source_filter_settle(rel, args.filter, &objects);
	table_close(rel, NoLock);

	insert_source(&args, relid, event_time, objects);
	worker_wakeup_at_commit();
	api_warn_worker_slots();
	PG_RETURN_OID(relid);
}
