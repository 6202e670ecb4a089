/*-------------------------------------------------------------------------
 *
 * stats_state.c
 *	  What a stream's state table holds: open windows, groups, bytes.
 *
 * Nothing is counted while batches run; these functions look at the table
 * when weir.stat_stream is asked for their columns, at a bounded cost:
 *
 *	open windows	one descent of the state's index a window, at most
 *					MAX_WINDOWS of them; the index begins with the window's
 *					end, which tells the windows of a stream apart
 *	oldest window	one descent
 *	groups			the rows are counted in up to MAX_BLOCKS blocks; a larger
 *					table is estimated from so many of its blocks, in
 *					STRETCHES all over it, since closing empties it here and
 *					fills it there
 *	bytes			sizes of its files
 *
 * The table belongs to the stream's owner, who may have done with it what he
 * likes, and the caller may be a superuser: so it is not read with SQL, only
 * tuples are fetched, and compared by PostgreSQL's own timestamp operators.
 * No one waits: on a table that is locked all of them are NULL.
 *
 * Everybody may call them; they answer the owner of the table and
 * pg_read_all_stats, and NULL to others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"

PG_FUNCTION_INFO_V1(weir_count_open_windows);
PG_FUNCTION_INFO_V1(weir_find_oldest_window);
PG_FUNCTION_INFO_V1(weir_count_groups);
PG_FUNCTION_INFO_V1(weir_measure_state);

#define MAX_WINDOWS 10000
#define MAX_BLOCKS 2048			/* 16 MB */
#define STRETCHES 64

/* Is it a table in weir_internal whose numbers the caller may see? */
static bool
may_see_state(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	bool		ok;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	ok = form->relkind == RELKIND_RELATION &&
		form->relnamespace == catalog_internal_schema() &&
		(has_privs_of_role(GetUserId(), form->relowner) ||
		 has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS));
	ReleaseSysCache(tuple);
	return ok;
}

/* NULL: not there, not to be seen, or locked. */
static Relation
open_state(Oid relid)
{
	if (!may_see_state(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return NULL;

	/* It may have been dropped or replaced just before the lock. */
	if (!may_see_state(relid))
	{
		UnlockRelationOid(relid, AccessShareLock);
		return NULL;
	}
	return table_open(relid, NoLock);
}

static Oid
column_type(Relation rel, AttrNumber attno)
{
	return TupleDescAttr(RelationGetDescr(rel), attno - 1)->atttypid;
}

/* Attribute number of a column of time, of either type; 0: there is none. */
static AttrNumber
time_column(Relation rel, const char *name)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), name);

	if (attno <= 0 || (column_type(rel, attno) != TIMESTAMPTZOID &&
					   column_type(rel, attno) != TIMESTAMPOID))
		return 0;
	return attno;
}

/* The index that begins with a column, ascending; NULL: there is none. */
static Relation
open_index_on(Relation rel, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == attno &&
			index->rd_opcintype[0] == column_type(rel, attno) &&
			index->rd_indoption[0] == 0 &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
			return index;
		index_close(index, AccessShareLock);
	}
	return NULL;
}

/*
 * The first window that ends after a time (DT_NOBEGIN: at all).  False:
 * there is none.
 */
static bool
next_window(Relation rel, Relation index, AttrNumber end_attno,
			TimestampTz after, TimestampTz *start, TimestampTz *end)
{
	AttrNumber	start_attno = time_column(rel, "window_start");
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		start_null = true;
	bool		end_null = true;

	ScanKeyInit(&key, end_attno, BTGreaterStrategyNumber,
				column_type(rel, end_attno) == TIMESTAMPTZOID ?
				F_TIMESTAMPTZ_GT : F_TIMESTAMP_GT,
				TimestampTzGetDatum(after));
	scan = systable_beginscan_ordered(rel, index, GetActiveSnapshot(), 1,
									  &key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		*end = DatumGetTimestampTz(heap_getattr(tuple, end_attno,
												RelationGetDescr(rel),
												&end_null));
		if (start_attno != 0)
			*start = DatumGetTimestampTz(heap_getattr(tuple, start_attno,
													  RelationGetDescr(rel),
													  &start_null));
	}
	systable_endscan_ordered(scan);
	if (start_null)
		*start = DT_NOBEGIN;
	return !end_null;
}

/*
 * Count open windows, up to max of them; *oldest is the start of the one
 * that ends first.  -1: not known, or a stream without windows.
 */
static int64
count_windows(Oid relid, int64 max, TimestampTz *oldest)
{
	Relation	rel = open_state(relid);
	Relation	index = NULL;
	AttrNumber	end_attno;
	TimestampTz start = DT_NOBEGIN;
	TimestampTz end = DT_NOBEGIN;
	int64		n = -1;

	*oldest = DT_NOBEGIN;
	if (rel == NULL)
		return -1;
	end_attno = time_column(rel, "window_end");
	if (end_attno != 0)
		index = open_index_on(rel, end_attno);
	if (index)
	{
		n = 0;
		while (n < max &&
			   next_window(rel, index, end_attno, end, &start, &end))
		{
			CHECK_FOR_INTERRUPTS();
			if (n == 0)
				*oldest = start;
			n++;
		}
		index_close(index, AccessShareLock);
	}
	table_close(rel, AccessShareLock);
	return n;
}

Datum
weir_count_open_windows(PG_FUNCTION_ARGS)
{
	TimestampTz oldest;
	int64		n = count_windows(PG_GETARG_OID(0), MAX_WINDOWS, &oldest);

	if (n < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(n);
}

Datum
weir_find_oldest_window(PG_FUNCTION_ARGS)
{
	TimestampTz oldest;

	(void) count_windows(PG_GETARG_OID(0), 1, &oldest);
	if (TIMESTAMP_NOT_FINITE(oldest))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(oldest);
}

/* Count the rows in n blocks from a first one on. */
static int64
count_rows(Relation rel, BlockNumber first, BlockNumber n)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData from;
	ItemPointerData to;
	TableScanDesc scan;
	int64		rows = 0;

	ItemPointerSet(&from, first, 0);
	ItemPointerSet(&to, first + n, 0);
	scan = table_beginscan_tidrange(rel, GetActiveSnapshot(), &from, &to);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		rows++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return rows;
}

Datum
weir_count_groups(PG_FUNCTION_ARGS)
{
	Relation	rel = open_state(PG_GETARG_OID(0));
	BlockNumber blocks;
	int64		n = 0;

	if (rel == NULL)
		PG_RETURN_NULL();
	blocks = RelationGetNumberOfBlocks(rel);
	if (blocks <= MAX_BLOCKS)
		n = count_rows(rel, 0, blocks);
	else
	{
		for (int i = 0; i < STRETCHES; i++)
			n += count_rows(rel, (uint64) blocks * i / STRETCHES,
							MAX_BLOCKS / STRETCHES);
		n = (int64) ((double) n * blocks / MAX_BLOCKS);
	}
	table_close(rel, AccessShareLock);
	PG_RETURN_INT64(n);
}

Datum
weir_measure_state(PG_FUNCTION_ARGS)
{
	Relation	rel = open_state(PG_GETARG_OID(0));
	int64		bytes;

	if (rel == NULL)
		PG_RETURN_NULL();
	bytes = DatumGetInt64(DirectFunctionCall1(pg_total_relation_size,
											  ObjectIdGetDatum(RelationGetRelid(rel))));
	table_close(rel, AccessShareLock);
	PG_RETURN_INT64(bytes);
}
