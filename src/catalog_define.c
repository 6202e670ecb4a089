/*-------------------------------------------------------------------------
 *
 * catalog_define.c
 *	  DDL on relations of weir's own: segments, their views, states.
 *
 * Event triggers fire for what users define.  One that adds a column to each
 * new table, or fails under a worker's search_path, would make of a segment
 * what its source does not fit.  So these commands are not given to
 * ProcessUtility, where event triggers are fired, but to what it calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/toasting.h"
#include "commands/comment.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "parser/parse_utilcmd.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"

#include "catalog_spi.h"
#include "compat.h"

/* None of them has options for its TOAST table. */
static void
define_table(CreateStmt *stmt, const char *sql)
{
	ListCell   *lc;

	foreach(lc, transformCreateStmt(stmt, sql))
	{
		Oid			relid;

		relid = DefineRelation(lfirst_node(CreateStmt, lc), RELKIND_RELATION,
							   InvalidOid, NULL, sql).objectId;
		CommandCounterIncrement();
		NewRelationCreateToastTable(relid, (Datum) 0);
	}
}

static void
define_index(IndexStmt *stmt, const char *sql)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, ShareLock, false);

	(void) compat_define_index(relid, transformIndexStmt(relid, stmt, sql));
}

/*
 * Run one command, as the current user, in a transaction with a snapshot.
 * Names in it are qualified.
 */
void
catalog_define(const char *sql)
{
	RawStmt    *raw = linitial_node(RawStmt, pg_parse_query(sql));
	Node	   *stmt = raw->stmt;

	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
			define_table((CreateStmt *) stmt, sql);
			break;
		case T_ViewStmt:
			(void) DefineView((ViewStmt *) stmt, sql, raw->stmt_location,
							  raw->stmt_len);
			break;
		case T_IndexStmt:
			define_index((IndexStmt *) stmt, sql);
			break;
		case T_AlterTableStmt:
			AlterTableInternal(RangeVarGetRelid(((AlterTableStmt *) stmt)->relation,
												AccessExclusiveLock, false),
							   ((AlterTableStmt *) stmt)->cmds, false);
			break;
		case T_CommentStmt:
			(void) CommentObject((CommentStmt *) stmt);
			break;
		case T_DropStmt:
			RemoveRelations((DropStmt *) stmt);
			break;
		case T_GrantStmt:
			ExecuteGrantStmt((GrantStmt *) stmt);
			break;
		default:
			elog(ERROR, "unexpected command: %s", sql);
	}
	CommandCounterIncrement();
}
