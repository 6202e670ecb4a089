/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the PostgreSQL versions weir runs on (15 to 18).
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "weir needs PostgreSQL 15 or later"
#endif

#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "commands/explain.h"
#include "optimizer/pathnode.h"
#include "utils/acl.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* 17 added restriction clauses, 18 disabled nodes. */
static inline ForeignPath *
compat_foreignscan_path(PlannerInfo *root, RelOptInfo *rel, double rows,
						Cost total_cost, Relids required_outer)
{
#if PG_VERSION_NUM >= 180000
	return create_foreignscan_path(root, rel, NULL, rows, 0, 0, total_cost,
								   NIL, required_outer, NULL, NIL, NIL);
#elif PG_VERSION_NUM >= 170000
	return create_foreignscan_path(root, rel, NULL, rows, 0, total_cost,
								   NIL, required_outer, NULL, NIL, NIL);
#else
	return create_foreignscan_path(root, rel, NULL, rows, 0, total_cost,
								   NIL, required_outer, NULL, NIL);
#endif
}

/* 16 made one function of the checks of objects without own rules. */
static inline AclResult
compat_server_aclcheck(Oid server_id, Oid userid, AclMode mode)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, server_id, userid, mode);
#else
	return pg_foreign_server_aclcheck(server_id, userid, mode);
#endif
}

/* 16 says how many there are. */
#include "utils/guc_tables.h"

static inline struct config_generic **
compat_guc_variables(int *n)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(n);
#else
	*n = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* 18 has it, in front of the declaration. */
#ifndef pg_noreturn
#define pg_noreturn _Noreturn
#endif

/* 18 has no execute_once. */
#if PG_VERSION_NUM >= 180000
#define compat_executor_run(desc) \
	ExecutorRun(desc, ForwardScanDirection, 0)
#else
#define compat_executor_run(desc) \
	ExecutorRun(desc, ForwardScanDirection, 0, true)
#endif

static inline AclResult
compat_schema_aclcheck(Oid schema, Oid userid, AclMode mode)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, userid, mode);
#else
	return pg_namespace_aclcheck(schema, userid, mode);
#endif
}

/* 17 has a resource owner own the set; ours live as long as the process. */
#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(cxt, n) CreateWaitEventSet(NULL, n)
#else
#define compat_create_wait_event_set(cxt, n) CreateWaitEventSet(cxt, n)
#endif

#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"

/* Column references of joins replaced by what they stand for. */
static inline Node *
compat_flatten_aliases(Query *query, Node *node)
{
#if PG_VERSION_NUM >= 160000
	return flatten_join_alias_vars(NULL, query, node);
#else
	return flatten_join_alias_vars(query, node);
#endif
}

/*
 * From 18 on, the outputs of a grouped query refer to its keys through a
 * range-table entry of their own, the last one; undo that.
 */
static inline void
compat_flatten_groups(Query *query)
{
#if PG_VERSION_NUM >= 180000
	if (!query->hasGroupRTE)
		return;
	query->targetList = (List *)
		flatten_group_exprs(NULL, query, (Node *) query->targetList);
	query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
	query->hasGroupRTE = false;
	Assert(llast_node(RangeTblEntry, query->rtable)->rtekind == RTE_GROUP);
	query->rtable = list_truncate(query->rtable,
								  list_length(query->rtable) - 1);
#endif
}

#include "utils/datetime.h"

/* 16 made it say more of an error. */
static inline int
compat_decode_date_time(char **field, int *ftype, int nf, int *dtype,
						struct pg_tm *tm, fsec_t *fsec, int *tz)
{
#if PG_VERSION_NUM >= 160000
	DateTimeErrorExtra extra;

	return DecodeDateTime(field, ftype, nf, dtype, tm, fsec, tz, &extra);
#else
	return DecodeDateTime(field, ftype, nf, dtype, tm, fsec, tz);
#endif
}

#include "commands/defrem.h"

/* 16 counts the parts of a partitioned table's index. */
static inline ObjectAddress
compat_define_index(Oid relid, IndexStmt *stmt)
{
#if PG_VERSION_NUM >= 160000
	return DefineIndex(relid, stmt, InvalidOid, InvalidOid, InvalidOid, -1,
					   false, true, true, false, false);
#else
	return DefineIndex(relid, stmt, InvalidOid, InvalidOid, InvalidOid,
					   false, true, true, false, false);
#endif
}

/* 16 has input functions that report errors without throwing them. */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#define WEIR_SOFT_ERRORS
#endif

#include "parser/parse_relation.h"
#include "parser/parse_type.h"

/* A type by its SQL text; 16 can do that without an error. */
static inline void
compat_parse_type(const char *text, Oid *type, int32 *typmod)
{
#if PG_VERSION_NUM >= 160000
	(void) parseTypeString(text, type, typmod, NULL);
#else
	parseTypeString(text, type, typmod, false);
#endif
}

/* The privileges of a range-table entry are asked of another role. */
static inline void
compat_check_as_user(Query *query, RangeTblEntry *rte, Oid userid)
{
#if PG_VERSION_NUM >= 160000
	getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser = userid;
#else
	rte->checkAsUser = userid;
#endif
}

/* The privileges of a range-table entry that is no longer a relation. */
static inline void
compat_clear_permissions(RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	rte->perminfoindex = 0;
#else
	rte->requiredPerms = 0;
	rte->checkAsUser = InvalidOid;
	rte->selectedCols = NULL;
#endif
}

/*
 * For files that include utils/datetime.h: the zone that a name, or an
 * abbreviation with a history, stands for; NULL: it is one offset for ever.
 */
#ifdef DATETIME_H
#include "parser/scansup.h"

static inline pg_tz *
compat_zone_that_changes(char *name)
{
	int			offset;
	pg_tz	   *tz = NULL;

#if PG_VERSION_NUM >= 160000
	if (DecodeTimezoneName(name, &offset, &tz) == TZNAME_FIXED_OFFSET)
		return NULL;
	return tz;
#else
	char	   *lower = downcase_truncate_identifier(name, strlen(name), false);

	switch (DecodeTimezoneAbbrev(0, lower, &offset, &tz))
	{
		case TZ:
		case DTZ:
			return NULL;
		case DYNTZ:
			return tz;
		default:
			return pg_tzset(name);
	}
#endif
}
#endif

#endif							/* WEIR_COMPAT_H */
