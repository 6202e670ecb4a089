/*-------------------------------------------------------------------------
 *
 * ddl_hook.h
 *	  What DDL on sources, targets and dimensions may do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WEIR_DDL_HOOK_H
#define WEIR_DDL_HOOK_H

/* From _PG_init, once. */
extern void ddl_hook_install(void);

/*
 * Run one DDL command as the current user, past the checks of the hook: for
 * weir's own commands on sources and targets.
 */
extern void ddl_hook_execute(const char *sql);

/* The same on what users do not see: no event triggers (catalog_define()). */
extern void ddl_hook_define(const char *sql);

#endif							/* WEIR_DDL_HOOK_H */
