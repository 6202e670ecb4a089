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

#endif							/* WEIR_DDL_HOOK_H */
