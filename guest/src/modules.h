// Kernel modules in the initramfs.
#ifndef MAGS_MODULES_H
#define MAGS_MODULES_H

// Loads the modules of /mods that the file lists, in its order, one name a line. Those already there are skipped.
// 0 or the errno of the first that failed. A missing list is an empty one.
int modules_load(const char *list);

#endif
