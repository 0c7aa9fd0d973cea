"""Reading and writing of files that are not ours: photos, landmark files, dataset annotations."""
