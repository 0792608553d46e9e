# Runs the payload of its step as a shell script.
exec sh -c "${QM2_PAYLOAD:?the payload of this step is the script to run}"
