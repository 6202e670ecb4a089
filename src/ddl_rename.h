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
 * Analyze all stored texts, before the rename; NULL when there are none.
 * Afterwards write those anew whose names have changed.
 */
extern StoredTexts *ddl_rename_begin(void);
extern void ddl_rename_end(StoredTexts *texts);

#endif							/* WEIR_DDL_RENAME_H */
