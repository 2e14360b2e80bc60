// An SFTP server, version 3 (draft-ietf-secsh-filexfer-02), on stdin and stdout, with the extensions of OpenSSH that
// clients use (posix-rename, hardlink, fsync, statvfs).
#ifndef MAGS_SFTP_H
#define MAGS_SFTP_H

int sftp_serve(void); // until the end of input; the exit status

#endif
