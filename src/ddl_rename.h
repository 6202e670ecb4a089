/*-------------------------------------------------------------------------
 *
 * ddl_rename.h
 *	  Keeping the texts in the catalog right when something is renamed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DDL_RENAME_H
#define WEIR_DDL_RENAME_H

typedef struct StoredTexts StoredTexts;

/*
 * Analyze the stored texts that hold the name, or all of them when it is
 * NULL, before the rename.  Afterwards write those anew that have changed.
 */
extern StoredTexts *ddl_rename_begin(const char *name);
extern void ddl_rename_end(StoredTexts *texts);

#endif							/* WEIR_DDL_RENAME_H */
